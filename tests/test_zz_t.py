import mlflow, torch, pytest, nfa
from test_watching import *
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("rel", ["agop_nfm,g_vs_h,h_vs_m","all"])
def test_x(run, bad, rel):
    toys=toy("convolutions")
    with nfa.watch(toys.net, toys.loss, (toys.inputs[:4], toys.targets[:4]), relations=rel) as w:
        print(w.record(0))
        with torch.no_grad(): toys.net[3].weight.fill_(bad)
        print(w.record(1))
