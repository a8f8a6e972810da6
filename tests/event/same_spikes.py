"""Whether an engine's spikes are those of an oracle."""

import numpy as np


def assert_same_spikes(got, wanted, accuracy=1e-9):
    """`got`: LayerSpikes or an array of times. The slots that one of both lacks do not count."""
    times = np.asarray(got.time if hasattr(got, "time") else got)
    if hasattr(got, "count"):
        np.testing.assert_array_equal(got.count, np.isfinite(wanted).sum(-1))
    slots = min(times.shape[-1], wanted.shape[-1])
    if not hasattr(got, "count"):  # what is cut off must be unused
        assert not np.isfinite(times[..., slots:]).any()
        assert not np.isfinite(wanted[..., slots:]).any()
    times, wanted = times[..., :slots], np.asarray(wanted)[..., :slots]
    np.testing.assert_array_equal(np.isfinite(times), np.isfinite(wanted))
    fired = np.isfinite(wanted)
    np.testing.assert_allclose(times[fired], wanted[fired], rtol=0, atol=accuracy)
