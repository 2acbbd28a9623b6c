"""Loaded by the server that tests' processes are forked from: what each of them would otherwise do again first."""

import gc
import importlib

from sqlalchemy.orm import configure_mappers
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from tests.support.stores import write_without_sync

# Imported late by MLflow, SQLAlchemy and peft.
LATE = (
    "alembic.command",
    "alembic.config",
    "git",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "peft.utils.save_and_load",
    "peft.utils.transformers_weight_conversion",
    "sqlalchemy.dialects.sqlite",
    "torch.profiler",
    "torch.utils.serialization.config",
)
for name in LATE:
    importlib.import_module(name)
configure_mappers()
write_without_sync()
get_checkpoint_conversion_mapping("llama")  # type: ignore[no-untyped-call]
gc.freeze()  # a fork's collections of garbage pass over what it has made itself only
