"""Former names of fields of losses and augmentations work, with a warning."""

from dataclasses import replace

import pytest

from jaxsnn.errors import UsageError
from jaxsnn.train.data.augment import Warp, augmentation_of
from jaxsnn.train.loop import chip_training
from jaxsnn.train.loop.checkpoint import _with_current_fields
from jaxsnn.train.loop.history import for_json
from jaxsnn.train.losses.losses import FirstSpike
from jaxsnn.train.option_values import replace_fields
from tests.helpers.refusals import assert_refused

LOSS = FirstSpike(population="2", tau=1e-3, t_max=1e-2, temperature=0.2)
WARP = Warp(shape=(4, 4), rotation=5.0, distortion=0.5)


@pytest.mark.parametrize(
    ("use", "expected", "name"),
    [
        (
            lambda: FirstSpike(population="2", tau=1e-3, t_max=1e-2, sharpness=0.2),
            LOSS,
            "temperature",
        ),
        (lambda: replace(LOSS, sharpness=0.3), replace(LOSS, temperature=0.3), "temperature"),
        (lambda: LOSS.sharpness, 0.2, "temperature"),
        (lambda: FirstSpike.sharpness, 0.01, "temperature"),
        (
            lambda: replace_fields(LOSS, {"sharpness": 0.3}, "loss_options"),
            replace(LOSS, temperature=0.3),
            "temperature",
        ),
        (lambda: chip_training.SHARPNESS, 0.1, "TEMPERATURE"),
        (lambda: Warp(shape=(4, 4), turn=5.0, distortion=0.5), WARP, "rotation"),
        (lambda: Warp(shape=(4, 4), rotation=5.0, bend=0.5), WARP, "distortion"),
        (lambda: (WARP.turn, WARP.bend), (5.0, 0.5), "distortion"),
        (
            lambda: augmentation_of({"turn": 5, "bend": 0.5, "shape": [4, 4]}, ()).steps,
            (WARP,),
            "rotation",
        ),
    ],
)
def test_former_names_work_with_a_warning(use, expected, name):
    with pytest.warns(DeprecationWarning, match=f"use '?{name}'? instead"):
        assert use() == expected


def test_a_value_with_both_names_is_rejected():
    assert_refused(
        lambda: augmentation_of({"turn": 5, "rotation": 5}, (4, 4)),
        UsageError,
        "augment contains both 'rotation' and its former name 'turn'",
        fix="remove 'turn'",
    )


def test_settings_of_earlier_checkpoints_are_read_with_current_names():
    settings = for_json([LOSS, WARP])
    former = [
        {
            {"temperature": "sharpness", "rotation": "turn", "distortion": "bend"}.get(k, k): v
            for k, v in record.items()
        }
        for record in settings
    ]
    assert former != settings
    assert _with_current_fields(former) == settings
