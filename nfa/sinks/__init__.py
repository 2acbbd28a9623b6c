"""Where `nfa.watch` writes: the active MLflow run, TensorBoard, JSON lines, this process's memory, or one's own."""

from nfa.sinks.json_lines import JsonLines
from nfa.sinks.memory import Memory
from nfa.sinks.mlflow import MlflowRun
from nfa.sinks.sink import Sink
from nfa.sinks.tensorboard import TensorBoard

__all__ = ["JsonLines", "Memory", "MlflowRun", "Sink", "TensorBoard"]
