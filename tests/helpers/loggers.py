"""Stand-ins for TensorBoard and Weights & Biases that record what they are called with."""

import sys
from types import ModuleType


class SummaryWriter:
    """`torch.utils.tensorboard.SummaryWriter`, as far as the documentation uses it."""

    def __init__(self, log_dir):
        self.log_dir, self.scalars, self.closed = log_dir, [], False

    def add_scalar(self, tag, scalar_value, global_step=None):
        assert isinstance(tag, str)
        assert not self.closed
        self.scalars.append((tag, float(scalar_value), int(global_step)))

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class Run:
    """The run that `wandb.init` returns, as far as the documentation uses it."""

    def __init__(self, project, config):
        self.project, self.config = project, dict(config)
        self.logged, self.summary, self.finished = [], {}, False

    def log(self, data, step=None):
        assert not self.finished
        assert step is None or not self.logged or step >= self.logged[-1][1]
        self.logged.append((dict(data), step))

    def finish(self):
        self.finished = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.finish()


def install(monkeypatch):
    """Let the imports of the documentation get the stand-ins; return all writers and all runs."""
    writers, runs = [], []

    def new_writer(log_dir):
        writers.append(SummaryWriter(log_dir))
        return writers[-1]

    def new_run(project, config):
        runs.append(Run(project, config))
        return runs[-1]

    tensorboard, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    tensorboard.SummaryWriter, wandb.init = new_writer, new_run
    for name in ("torch", "torch.utils"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (tensorboard, wandb):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return writers, runs
