"""Ready-made workloads, one file each, trained by name (`train workload=cnn`); copy one to write your own."""

_HERE = "nfa.registry.ready"
READY = {
    "cnn": f"{_HERE}.cnn:cnn",
    "resnet": f"{_HERE}.resnet:resnet",
    "transformer": f"{_HERE}.transformer:transformer",
    "modular-addition": f"{_HERE}.modular_addition:modular_addition",
    "sparse-parity": f"{_HERE}.sparse_parity:sparse_parity",
    "multi-index": f"{_HERE}.multi_index:multi_index",
}
