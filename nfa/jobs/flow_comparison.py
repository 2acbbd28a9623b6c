def compare(run, parts, sources, *, seed):
    pass
