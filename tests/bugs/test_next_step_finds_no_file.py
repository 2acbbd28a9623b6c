"""Fault 7 of LoRA programs: file names that the next step did not find, and flags that did not exist.

A step is given a run id, never a file name; what a run's files are called is in its config.json.
"""

from nfa.registry.families.language.teacher.config import LoraSvdConfig, SynthesizeTeacherConfig
from nfa.registry.families.language.teacher.lora_svd import lora_svd
from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher
from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.stores import Store


def test_a_step_takes_up_the_one_before_whatever_the_ranks_in_its_file_names(store: Store) -> None:
    source = lora_runs.adapter_run(rank=3)
    with undrawn():
        teacher = synthesize_teacher(SynthesizeTeacherConfig(run_id=source.run_id[:12], target_rank=11))
        found = lora_svd(LoraSvdConfig(run_id=teacher.run_id[:12], rank=5))
    for run_id, key in ((teacher.run_id, "teacher"), (found.run_id, "factors")):
        config = store.json(run_id, "config.json")
        assert store.artifact(run_id, config[key]).is_file()
        assert set(config["modules"]) == set(source.updates)
    assert store.tags(found.run_id)["nfa.source_run_ids"] == teacher.run_id
