"""Three small trainings and their analysis, in a minute."""

import dataclasses

from nfa.console import stage
from nfa.figures.training_analysis import training_analyses
from nfa.parallel import World
from nfa.registry import tracking
from nfa.registry.analyses import alignment_report
from nfa.registry.analyses.alignment import Alignment
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.analyses.output_folders import output_folder
from nfa.registry.analyses.stored import analyse_each
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end, describe_start, table_of_children
from nfa.registry.families.mlp.config import DemoConfig, TrainConfig
from nfa.registry.families.registry import family_of
from nfa.registry.run_names import training_name
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking.sources import find_sources
from nfa.registry.training.time_spent import timed
from nfa.registry.training.variants import first_of, train_each

FIGURE = "demo_enhanced_analysis"


def demo(config: DemoConfig) -> None:
    """Create a parent run with one training per optimizer, an analysis of each, and a figure of all."""
    clock = Stopwatch()
    folder = output_folder(config.output_dir)
    asked = {name: value for name, value in dataclasses.asdict(config).items() if name != "output_dir"}
    training = TrainConfig(optimizer="all", schedule="all", loss="cross-entropy", batch_size=32, **asked)
    family = family_of(training)
    ready = family.training.prepare(first_of(training), family.training.read(training, clock))
    run = tracking.open_run("demo", "mlp", otherwise=f"demo: {training_name(training)}")
    with run, timed(run, clock, family=True):
        run.log_params(dataclasses.asdict(config))
        describe_start(run, run.info.info.run_name, "start it again.")
        train_each(run, training, ready, clock)
        curves = AnalyzeConfig(relations=",".join(alignment_report.SIX_CURVES))
        with clock.section("analysis"):
            analysed = analyse_each(Alignment(curves, World()), find_sources(run.run_id))
        subject = family.subject(tracking.config(run.run_id))
        alignment_report.compare(run, analysed, subject)
        series = dict(zip(analysed, tracking.histories(analysed.values()).values(), strict=True))
        sites = [f"layer_{index}" for index in range(config.depth)]
        title = f"{subject}, seed {config.seed}: three optimizers, {config.epochs} epochs"
        loss = family.loss(tracking.config(run.run_id))
        figure = training_analyses(series, sites, alignment_report.SIX_CURVES, title=title, loss=loss)
        tracking.save_picture(run, figure, FIGURE)
        after = command("gradient_flow", run_id=run.run_id)
        describe_end(run, title, table=table_of_children(run), pictures=[FIGURE], after=after)
    stage("figure", f"plots/{FIGURE}.png and .pdf")
    if folder:
        files = [f"{FIGURE}.{kind}" for kind in ("png", "pdf")]
        tracking.copy_artifacts(run.run_id, folder, {f"plots/{file}": file for file in files})
        stage("copy", f"{folder / FIGURE}.png")
    stage("next", after)
    stage("compare", tracking.link_to_children(run.info))
    stage("done", run.link)
