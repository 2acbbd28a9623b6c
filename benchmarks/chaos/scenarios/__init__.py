"""What is done to the product, a file a kind."""

from benchmarks.chaos.campaign import Scenario
from benchmarks.chaos.scenarios import analyses, claims, disks, firsts, kills, outages, passwords, sweeps

ALL: list[Scenario] = [
    *kills.SCENARIOS,
    *claims.SCENARIOS,
    *outages.SCENARIOS,
    *disks.SCENARIOS,
    *sweeps.SCENARIOS,
    *analyses.SCENARIOS,
    *firsts.SCENARIOS,
    *passwords.SCENARIOS,
]
