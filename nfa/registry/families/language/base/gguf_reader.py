"""gguf's reader, made safe for damaged files and quick for long vocabularies."""

from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType


class BoundedReader(GGUFReader):
    """Raises for numbers that lie beyond the file's end.

    GGUFReader gives fewer of them then, so that an array of a damaged length is read up to 2⁶⁴ times; and it takes
    seconds, not tenths, for the tokens of a usual model. The two methods are internal to version 0.19: under another
    name they would no longer be called, and a test says so.
    """

    def _get(
        self, offset: int, dtype: Any, count: int = 1, override_order: str | None = None  # noqa: ARG002
    ) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.data, np.dtype(dtype).newbyteorder("<"), int(count), offset)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        """The size of a value, its parts, which of them are data, and their types; numbers of an array as one part."""
        if raw_type == GGUFValueType.ARRAY:
            (inner,), (length,) = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
            if number := self.gguf_scalar_to_np.get(inner):
                values = self._get(orig_offs + 12, number, length)
                return 12 + values.nbytes, [values], [0], [GGUFValueType.ARRAY, GGUFValueType(inner)]
        return super()._get_field_parts(orig_offs, raw_type)
