"""What a network of a recipe could learn without spikes: the same layers with rectifiers, by torch.

    python benchmarks/train_rectifiers.py examples/recipes/fashion-convolutions.toml --data-folder DIR

Sizes, epochs, batches, the fraction of inputs that is left out, label smoothing and the images that
a seed holds out are those of the recipe. Images go in as they are, each layer has a bias, first
weights are torch's own, and Adam's learning rate (`--lr`) falls as a cosine. The validation images
choose the epoch, the test images are looked at once. Prints one line of JSON for each seed.
"""

import argparse
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seeds import each_seed

from jaxsnn.commands.train_command import read_config
from jaxsnn.console import to_stderr
from jaxsnn.train.data.labelled_files import load_splits

#: Samples that are evaluated together.
AT_ONCE = 1000
Images = tuple[torch.Tensor, torch.Tensor]


def rectifiers(layers: list[dict[str, Any]], shape: tuple[int, ...]) -> torch.nn.Sequential:
    """The layers of a recipe's network, for images (planes, rows, columns)."""
    net, flat = torch.nn.Sequential(), False
    for layer in layers:
        if "channels" in layer:
            sizes = layer["channels"], layer["kernel"]
            where = layer.get("stride", 1), layer.get("padding", 0)
            net.append(torch.nn.LazyConv2d(*sizes, *where))
        else:
            if not flat:
                net.append(torch.nn.Flatten())
            net.append(torch.nn.LazyLinear(layer["neurons"]))
            flat = True
        if not layer.get("readout"):
            net.append(torch.nn.ReLU())
    net(torch.zeros(1, *shape))  # now the sizes are known
    return net


def images_of(part: Any) -> Images:
    """Images (samples, 1, rows, columns) from 0 to 1, and their labels."""
    values = np.asarray(part.x, np.float32).reshape(len(part), -1)
    side = round(values.shape[1] ** 0.5)
    labels = torch.tensor(np.asarray(part.y)).long()
    return torch.tensor(values).reshape(-1, 1, side, side), labels


def batches(images: Images, size: int) -> Iterator[Images]:
    """All in random order, without an incomplete batch."""
    order = torch.randperm(len(images[0]))
    for index in order[: len(order) // size * size].split(size):
        yield images[0][index], images[1][index]


def accuracy(net: torch.nn.Module, images: Images) -> float:
    """The fraction that is answered right."""
    with torch.no_grad():
        answers = [net(part).argmax(1) for part in images[0].split(AT_ONCE)]
    return float((torch.cat(answers) == images[1]).float().mean())


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed."""
    torch.manual_seed(seed)
    start, layers = time.process_time(), tomllib.loads(arguments.recipe.read_text())["network"]
    options: dict[str, Any] = read_config(str(arguments.recipe))
    splits, _ = load_splits(options["data"], seed, folder=arguments.data_folder)
    train, validation, test = map(images_of, (splits.train, splits.validation, splits.test))
    net = rectifiers(layers["layers"], tuple(train[0].shape[1:]))
    optimiser = torch.optim.Adam(net.parameters(), lr=arguments.lr)
    epochs, size = options["epochs"], options["batch_size"]
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * (len(train[0]) // size))
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=options["loss_options"]["smoothing"])
    left_out, best = options.get("augment", {}).get("dropout", 0.0), {"validation": -1.0}
    for epoch in range(1, epochs + 1):
        for images, labels in batches(train, size):
            loss = loss_of(net(images * (torch.rand_like(images) >= left_out)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
        validated = accuracy(net, validation)
        to_stderr(f"epoch {epoch}/{epochs}  validation {validated:.4f}")
        if validated > best["validation"]:
            best = {"validation": round(validated, 4), "best_epoch": epoch}
            kept = {name: array.clone() for name, array in net.state_dict().items()}
    net.load_state_dict(kept)
    return {
        "seed": seed,
        "test": round(accuracy(net, test), 4),
        "train": round(accuracy(net, train), 4),
        **best,
        "cpu_minutes": round((time.process_time() - start) / 60, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train rectifiers by the recipe of a network.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data-folder")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = ("validation", "test", "train")
    each_seed(lambda seed: run(seed, arguments), arguments.seeds, names, arguments.first)


if __name__ == "__main__":
    main()
