"""Fault 7: the Jacobians of all examples were kept (9 GB at full size)."""

import weakref

from nfa.measures.agop import Agop
from nfa.observe.passes import observe
from nfa.observe.records import Source
from tests.support.toy_models import layers, seeded, toy


def test_a_batchs_gradients_are_gone_when_the_next_ones_are_heard():
    """One output direction of one batch lives at a time, at every site."""

    class Watcher:
        source, needs = Source.OUTPUT, frozenset()

        def __init__(self) -> None:
            self.seen, self.most = [], 0

        def update(self, record) -> None:
            self.seen.append(weakref.ref(record.gradient))
            self.most = max(self.most, sum(reference() is not None for reference in self.seen))

    toys = toy(seeded(layers, 4, 6, 5), 30, 4, sites=["0", "2"])
    watchers = {name: Watcher() for name in toys.sites_named}
    measures = {name: lambda weight, name=name: [Agop(weight), watchers[name]] for name in watchers}
    observe(toys.net, toys, toys.batches("train", batch_size=2), measures)
    for watcher in watchers.values():
        assert len(watcher.seen) == 15 * 5
        assert watcher.most <= 2
        assert not any(reference() is not None for reference in watcher.seen)
