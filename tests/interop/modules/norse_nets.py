"""Networks of Norse as people write them: states from call to call, or modules that run through time."""

import itertools

import norse.torch as norse
import torch
import torch.nn.functional as F
from torch import nn

INPUTS, HIDDEN, OUTPUTS, STEPS = 5, 6, 4, 8


class VoltageDecoder(nn.Module):
    """LIFCell and a leaky readout with weights; log_softmax of the maximum over time."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(INPUTS, HIDDEN, bias=False)
        self.lif = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1)))
        self.readout = norse.LILinearCell(HIDDEN, OUTPUTS)

    def forward(self, x):
        s1 = so = None
        voltages = []
        for ts in range(x.shape[0]):
            z, s1 = self.lif(self.fc(x[ts]), s1)
            vo, so = self.readout(z, so)
            voltages.append(vo)
        maxima, _ = torch.max(torch.stack(voltages), 0)
        return F.log_softmax(maxima, dim=1)


class BoxCells(nn.Module):
    """LIFBoxCell; states in a list that grows from None."""

    def __init__(self):
        super().__init__()
        p = norse.LIFBoxParameters(tau_mem_inv=torch.as_tensor(200.0), v_th=torch.as_tensor(0.3))
        self.layers = nn.ModuleList([nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, OUTPUTS)])
        self.cells = nn.ModuleList([norse.LIFBoxCell(p), norse.LIFBoxCell(p)])

    def forward(self, x):
        states = [None] * len(self.cells)
        outputs = []
        for frame in x:
            z = frame
            for i, (layer, cell) in enumerate(zip(self.layers, self.cells, strict=True)):
                z, states[i] = cell(layer(z), states[i])
            outputs.append(z)
        return torch.stack(outputs)


class SequentialLoop(nn.Module):
    """SequentialState called in a loop with its state."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.1))
        self.model = norse.SequentialState(
            nn.Linear(INPUTS, HIDDEN),
            norse.LIFCell(p),
            nn.Dropout(0.3),
            nn.Linear(HIDDEN, OUTPUTS),
            norse.LICell(),
        )

    def forward(self, x):
        state = None
        outputs = []
        for t in range(len(x)):
            y, state = self.model(x[t], state)
            outputs.append(y)
        return torch.stack(outputs)


class Lifted(nn.Module):
    """All steps at once: Lift, and neurons that run through time."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.1))
        self.model = norse.SequentialState(
            norse.Lift(nn.Linear(INPUTS, HIDDEN)),
            norse.LIF(p),
            norse.Lift(nn.Linear(HIDDEN, OUTPUTS)),
            norse.LI(),
        )

    def forward(self, x):
        y, _ = self.model(x)
        return y


class LiftedThenLoop(nn.Module):
    """A part that runs through time itself, and a loop behind it."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.1))
        self.first = norse.SequentialState(norse.Lift(nn.Linear(INPUTS, HIDDEN)), norse.LIF(p))
        self.fc = nn.Linear(HIDDEN, OUTPUTS)
        self.cell = norse.LIFCell(p)

    def forward(self, x):
        hidden, _ = self.first(x)
        state, outputs = None, []
        for z in hidden:
            y, state = self.cell(self.fc(z), state)
            outputs.append(y)
        return torch.stack(outputs)


class Encoded(nn.Module):
    """A static image, encoded as spikes of neurons under a constant current."""

    def __init__(self):
        super().__init__()
        self.encoder = norse.ConstantCurrentLIFEncoder(seq_length=STEPS)
        self.fc = nn.Linear(INPUTS, HIDDEN)
        self.lif = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1)))

    def forward(self, x):
        frames = self.encoder(20 * x)
        state, outputs = None, []
        for t in range(STEPS):
            z, state = self.lif(self.fc(frames[t]), state)
            outputs.append(z)
        return torch.stack(outputs).sum(0) / STEPS


class RecurrentCell(nn.Module):
    """LIFRecurrentCell, whose weights are its own; the last voltage."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.1))
        self.recurrent = norse.LIFRecurrentCell(INPUTS, HIDDEN, p=p)
        self.fc = nn.Linear(HIDDEN, OUTPUTS, bias=False)
        self.out = norse.LICell()

    def forward(self, x):
        seq_length = x.shape[1]
        s1 = so = None
        for ts in range(seq_length):
            z, s1 = self.recurrent(x[:, ts, :], s1)
            vo, so = self.out(self.fc(z), so)
        return vo


class Refractory(nn.Module):
    """LIFRefracCell: neurons that rest after a spike."""

    def __init__(self):
        super().__init__()
        p = norse.LIFRefracParameters(
            lif=norse.LIFParameters(v_th=torch.as_tensor(0.1)), rho_reset=torch.as_tensor(2.0)
        )
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.lif1 = norse.LIFRefracCell(p)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)
        self.lif2 = norse.LIFRefracCell(p)

    def forward(self, x):
        s1, s2 = None, None
        spikes = []
        for t in range(x.shape[0]):
            z, s1 = self.lif1(self.fc1(x[t]), s1)
            z, s2 = self.lif2(self.fc2(z), s2)
            spikes.append(z)
        return torch.stack(spikes)


class ConvolutionalStates(nn.Module):
    """Convolutions, pooling of spikes by a function, view; states by name."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.15))
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.lif0 = norse.LIFCell(p)
        self.fc1 = nn.Linear(2 * 4, OUTPUTS)
        self.lif1 = norse.LIFCell(p)

    def forward(self, x):
        batch_size = x.shape[1]
        s0 = s1 = None
        outputs = torch.zeros(x.shape[0], batch_size, OUTPUTS)
        for ts in range(x.shape[0]):
            z = self.conv1(x[ts])
            z, s0 = self.lif0(z, s0)
            z = F.max_pool2d(z, 2, 2)
            z = z.view(batch_size, -1)
            z, s1 = self.lif1(self.fc1(z), s1)
            outputs[ts] = z
        return outputs


class IntegrateAndFire(nn.Module):
    """IAFCell in one step per call: (x, state) -> (spikes, state)."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, OUTPUTS)
        self.first, self.second = norse.IAFCell(), norse.IAFCell()

    def forward(self, x, state=None):
        first, second = (None, None) if state is None else state
        z, first = self.first(self.fc1(x), first)
        z, second = self.second(self.fc2(z), second)
        return z, (first, second)


class LiftedSequential(nn.Module):
    """Lift of a SequentialState: one loop over all its layers."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.1))
        self.model = norse.Lift(
            norse.SequentialState(
                nn.Linear(INPUTS, HIDDEN),
                norse.LIFCell(p),
                nn.Linear(HIDDEN, OUTPUTS),
                norse.LICell(),
            )
        )

    def forward(self, x):
        voltages, _ = self.model(x)
        return voltages.mean(0)


class TwoTimeSteps(nn.Module):
    """Neurons with a dt of 2 ms, and a readout with the default dt."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.2))
        self.fc, self.lif = nn.Linear(INPUTS, HIDDEN), norse.LIFCell(p, dt=0.002)
        self.readout = norse.LILinearCell(HIDDEN, OUTPUTS)

    def forward(self, x):
        s1 = so = None
        for frame in x:
            z, s1 = self.lif(self.fc(frame), s1)
            vo, so = self.readout(z, so)
        return vo


class LoopingBlock(nn.Module):
    """A block that loops over all time steps."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.lif = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1)))

    def forward(self, x):
        state, outputs = None, []
        for t in range(x.shape[0]):
            z, state = self.lif(self.fc(x[t]), state)
            outputs.append(1.5 * z)
        return torch.stack(outputs)


class LoopingBlocks(nn.Module):
    """Consecutive blocks of one class: their loops run the same code."""

    def __init__(self):
        super().__init__()
        sizes = (INPUTS, HIDDEN, HIDDEN, OUTPUTS)
        blocks = [LoopingBlock(*pair) for pair in itertools.pairwise(sizes)]
        self.blocks = norse.SequentialState(*blocks)

    def forward(self, x):
        y, _ = self.blocks(x)
        return y.sum(0)


class SharedCell(nn.Module):
    """One cell for two layers, with a separate state for each."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.lif = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1)))

    def forward(self, x):
        s1 = s2 = None
        outputs = []
        for frame in x:
            z, s1 = self.lif(self.fc1(frame), s1)
            y, s2 = self.lif(self.fc2(z), s2)
            outputs.append(y)
        return torch.stack(outputs)
