def route_greedily(task, placement, rng, effort):
    raise NotImplementedError
