"""A conformance suite that you can run on a workload of your own.

    from nfa.testing import check_workload

    assert check_workload(make).ok

`make()` returns a `nfa.workload.Workload`. Every study is run on it and compared with slow references in float64, and
with the same training without a watch.
"""

from nfa.testing.conformance import check_workload as check_workload
from nfa.testing.table import CheckRow as CheckRow
from nfa.testing.table import Conformance as Conformance
