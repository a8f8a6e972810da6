# %% [markdown]
# # Log a training run to TensorBoard or Weights & Biases
#
# `fit` calls each function in `callbacks` after every epoch, with a report on it. Neither logger is a
# dependency: `pip install tensorboard`, or `pip install wandb`, installs what you use. The writer of
# TensorBoard is part of PyTorch.

# %%
import jaxsnn.train
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal

LOGGER = "tensorboard"  # or "wandb"
SAMPLES = (5000, 1000, 1000)  # of training, validation and test
HIDDEN = 120
EPOCHS = 30
OPTIONS = jaxsnn.train.TrainOptions(epochs=EPOCHS, learning_rate=0.05)

# %% [markdown]
# A callback is a function of an `EpochReport`. Its method `as_dict` returns the losses, the accuracies,
# the learning rate and the spikes of each population as plain numbers.


# %%
def to_tensorboard(writer):
    """Return a callback that adds the numbers of each epoch to a `SummaryWriter`."""

    def log_epoch(report):
        for name, value in report.as_dict().items():
            writer.add_scalar(name, value, report.epoch)

    return log_epoch


def to_wandb(run):
    """Return a callback that logs the numbers of each epoch to a run of Weights & Biases."""

    def log_epoch(report):
        run.log(report.as_dict(), step=report.epoch)

    return log_epoch


# %% [markdown]
# Other callbacks can save the network of each new best epoch, and stop the run: the one that returns
# True.


# %%
def save_best(report):
    """Write the network of each new best epoch."""
    if report.is_best:
        jaxsnn.write("log_training.nir", report.graph(), force=True)


def stop_at(accuracy):
    """Return a callback that stops the run at a validation accuracy."""

    def reached(report):
        return report.record.validation_accuracy >= accuracy

    return reached


# %%
neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(
    build.input(5),
    build.linear(HIDDEN, weight=normal(1.2, 0.6)),
    neurons,
    build.linear(3, weight=normal(0.3, 0.3)),
    neurons,
    seed=0,
)
data = jaxsnn.train.yinyang_splits(sizes=SAMPLES)

if LOGGER == "tensorboard":
    from torch.utils.tensorboard import SummaryWriter  # pyright: ignore[reportMissingImports]

    with SummaryWriter("runs/yinyang") as writer:
        callbacks = (to_tensorboard(writer), save_best, stop_at(0.97))
        trained = jaxsnn.fit(graph, data, options=OPTIONS, callbacks=callbacks)
else:
    import wandb  # pyright: ignore[reportMissingImports]

    settings = {"epochs": OPTIONS.epochs, "learning_rate": OPTIONS.learning_rate}
    with wandb.init(project="yinyang", config=settings) as run:
        callbacks = (to_wandb(run), save_best, stop_at(0.97))
        trained = jaxsnn.fit(graph, data, options=OPTIONS, callbacks=callbacks)
        run.summary["test_accuracy"] = trained.test_accuracy

# %% [markdown]
# `tensorboard --logdir runs` shows the curves in a browser. The history of the run has the same numbers.

# %%
print(f"{len(trained.history) - 1} epochs, test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained).save("log_training.png", force=True)
