"""Where `nfa.watch` writes: the active MLflow run, TensorBoard, JSON lines, memory, or an object of your own."""

from nfa.sinks.json_lines import JsonLines as JsonLines
from nfa.sinks.memory import Memory as Memory
from nfa.sinks.mlflow import MlflowRun as MlflowRun
from nfa.sinks.sink import Sink as Sink
from nfa.sinks.tensorboard import TensorBoard as TensorBoard
