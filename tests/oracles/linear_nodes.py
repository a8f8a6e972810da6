"""What nodes without a state do, by their definitions: convolutions and pools one product at a time,
and the matrices of the nodes that docs/guide_neuron.md adds.
"""

import itertools

import numpy as np


def convolution(x, weight, bias, stride, padding, dilation, groups):
    """A convolution of x (..., channels, *space) with a weight (outputs, inputs of a group, *kernel).

    `stride`, `padding` and `dilation` have one entry for each axis of space. A pool is one with as
    many groups as channels.
    """
    kernel, spatial = weight.shape[2:], weight.ndim - 2
    first_axis = x.ndim - spatial
    padded = np.pad(x, [(0, 0)] * first_axis + [(size, size) for size in padding])
    space = [
        (length - step * (size - 1) - 1) // jump + 1
        for length, step, size, jump in zip(
            padded.shape[first_axis:], dilation, kernel, stride, strict=True
        )
    ]
    y = np.zeros((*x.shape[: first_axis - 1], len(weight), *space))
    inputs_of_group, outputs_of_group = weight.shape[1], len(weight) // groups
    for channel, *place in itertools.product(range(len(weight)), *map(range, space)):
        first = channel // outputs_of_group * inputs_of_group
        for source, *tap in itertools.product(*map(range, weight.shape[1:])):
            at = [
                position * jump + part * step
                for position, jump, part, step in zip(place, stride, tap, dilation, strict=True)
            ]
            product = padded[(..., first + source, *at)] * weight[(channel, source, *tap)]
            y[(..., channel, *place)] += product
        y[(..., channel, *place)] += bias[channel]
    return y


def synapses_of_convolution(size, weight, stride, padding, dilation, space):
    """How many products of a convolution from `size` to `space` are of an element and a weight that
    is not zero.
    """
    count = 0
    for place in itertools.product(*map(range, space)):
        for tap in itertools.product(*map(range, weight.shape[2:])):
            at = [
                place[axis] * stride[axis] - padding[axis] + tap[axis] * dilation[axis]
                for axis in range(len(size))
            ]
            if all(0 <= position < length for position, length in zip(at, size, strict=True)):
                count += int(np.count_nonzero(weight[(..., *tap)]))
    return count


def gather(index, gain, inputs):
    """The matrix (outputs, inputs) of a Gather: output i is channel index[i], times its gain."""
    weight = np.zeros((len(index), inputs))
    weight[np.arange(len(index)), index] = gain
    return weight


def moving_sum(shape, taps):
    """The matrix of a Smooth on a signal of a shape, which it sums along the last axis."""
    size = int(np.prod(shape))
    matrix = np.zeros((size, size))
    for place in np.ndindex(*shape):
        for k, tap in enumerate(taps):
            source = place[-1] + k - len(taps) // 2
            if 0 <= source < shape[-1]:
                pair = [np.ravel_multi_index((*place[:-1], p), shape) for p in (place[-1], source)]
                matrix[pair[0], pair[1]] += tap
    return matrix
