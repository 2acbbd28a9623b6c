"""MLflow's client with time limits, and with passwords masked in everything stored and in error messages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from mlflow.entities import Dataset, DatasetInput, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from nfa.masking import learn, masked, tellable
from nfa.registry.tracking.calls import limited


class GuardedClient:
    """Every call has a time limit, and every text passed to it is masked, except for artifact paths."""

    def __init__(self, uri: str) -> None:
        learn(uri)
        with telling_no_password():
            self._client = limited(MlflowClient, tracking_uri=uri)

    @property
    def store(self) -> Any:
        """MLflow's object for the store, for what the client itself cannot ask; its calls are not guarded."""
        return self._client._tracking_client.store

    def __getattr__(self, name: str) -> Any:
        return partial(guarded_call, getattr(self._client, name))


def guarded_call(method: Any, *arguments: Any, **named: Any) -> Any:
    """Return what `method` returns for the masked arguments."""
    with telling_no_password():
        if "artifact" in method.__name__:
            return limited(method, *arguments, **named)
        return limited(method, *masked_arguments(arguments), **masked_arguments(named))


@contextmanager
def telling_no_password() -> Iterator[None]:
    """Remove passwords from the messages of errors raised in the block."""
    try:
        yield
    except Exception as error:
        if tellable(error):
            raise
        raise MlflowException(masked(str(error))) from None


def masked_arguments(value: Any) -> Any:
    """Return an argument of a client method with masked texts."""
    match value:
        case str():
            return masked(value)
        case Param() | RunTag():
            return type(value)(value.key, masked(value.value))
        case DatasetInput(dataset=data):
            name, source = masked(data.name), masked(data.source)
            kept = Dataset(name, data.digest, data.source_type, source, data.schema, data.profile)
            return DatasetInput(kept, value.tags)
        case Mapping():
            return {key: masked_arguments(item) for key, item in value.items()}
        case list() | tuple():
            return [masked_arguments(item) for item in value]
    return value
