"""Networks of SpikingJelly as people write them: step modes "s" and "m", and loops over time."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.ann2snn.modules import VoltageScaler
from torch import nn

INPUTS, HIDDEN, OUTPUTS, STEPS = 5, 6, 4, 8


class CountedSpikes(nn.Module):
    """One Sequential, called in a loop; its spikes are added and divided by T."""

    def __init__(self, T=STEPS):
        super().__init__()
        self.T = T
        self.layer = nn.Sequential(
            layer.Flatten(),
            layer.Linear(INPUTS, OUTPUTS, bias=False),
            neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), v_threshold=0.5),
        )

    def forward(self, x):
        functional.reset_net(self)
        out_fr = 0.0
        for _t in range(self.T):
            out_fr += self.layer(x)
        return out_fr / self.T


class StackedSpikes(nn.Module):
    """x[t] into two layers; a list that is stacked."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, OUTPUTS)
        self.sn1 = neuron.IFNode()
        self.sn2 = neuron.LIFNode(tau=1.5, decay_input=False)

    def forward(self, x_seq):
        functional.reset_net(self)
        y_seq = []
        for t in range(x_seq.shape[0]):
            y = self.sn1(self.fc1(x_seq[t]))
            y_seq.append(self.sn2(self.fc2(y)))
        return torch.stack(y_seq)


class MultiStep(nn.Module):
    """Step mode "m": the image is repeated, the rate is the mean over time."""

    def __init__(self, T=STEPS):
        super().__init__()
        self.T = T
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, 2, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(2),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
            layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(2 * 9, OUTPUTS, bias=False),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
        )
        functional.set_step_mode(self, step_mode="m")

    def forward(self, x):
        functional.reset_net(self)
        x_seq = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
        return self.conv_fc(x_seq).mean(0)


class TwoSteps(MultiStep):
    """Step mode "m" with two time steps, too few to compare them."""

    def __init__(self):
        super().__init__(T=2)
        self.conv_fc[-1] = neuron.IFNode(v_threshold=2.0, step_mode="m")


class ResidualSteps(nn.Module):
    """Step mode "m": spikes are added to those of an earlier layer, and channels are joined."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = layer.Linear(INPUTS, HIDDEN), layer.Linear(HIDDEN, HIDDEN)
        self.fc3 = layer.Linear(2 * HIDDEN, OUTPUTS)
        self.sn1, self.sn2, self.sn3 = neuron.IFNode(), neuron.LIFNode(), neuron.IFNode()
        functional.set_step_mode(self, step_mode="m")

    def forward(self, x_seq):
        functional.reset_net(self)
        first = self.sn1(self.fc1(x_seq))
        second = self.sn2(self.fc2(first)) + first
        return self.sn3(self.fc3(torch.cat((first, 0.5 * second), dim=-1)))


class Containers(nn.Module):
    """SeqToANNContainer around layers, neurons in step mode "m"."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            layer.SeqToANNContainer(nn.Linear(INPUTS, HIDDEN)),
            neuron.LIFNode(step_mode="m", v_threshold=0.4),
            layer.SeqToANNContainer(nn.Linear(HIDDEN, OUTPUTS)),
            neuron.LIFNode(step_mode="m", v_threshold=0.4),
        )

    def forward(self, x):
        functional.reset_net(self)
        return self.net(x)


class Mixed(nn.Module):
    """Layers in step mode "m", a loop behind them."""

    def __init__(self):
        super().__init__()
        self.fc1 = layer.Linear(INPUTS, HIDDEN, step_mode="m")
        self.sn1 = neuron.IFNode(step_mode="m", v_threshold=0.7)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)
        self.sn2 = neuron.LIFNode(v_threshold=0.4)

    def forward(self, x):
        functional.reset_net(self)
        hidden = self.sn1(self.fc1(x))
        total = 0
        for t in range(hidden.shape[0]):
            total = total + self.sn2(self.fc2(hidden[t]))
        return total


class MultiStepFunction(nn.Module):
    """functional.multi_step_forward of layers that process one step."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(INPUTS, HIDDEN), neuron.LIFNode(v_threshold=0.4))
        self.head = nn.Sequential(nn.Linear(HIDDEN, OUTPUTS), neuron.LIFNode(v_threshold=0.4))

    def forward(self, x_seq):
        functional.reset_net(self)
        hidden = functional.multi_step_forward(x_seq, self.body)
        return functional.multi_step_forward(hidden, self.head)


class SharedStem(nn.Module):
    """A convolutional stem computed once, its output fed in each step; a voting layer."""

    def __init__(self, T=STEPS):
        super().__init__()
        self.T = T
        self.static_conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.spiking = nn.Sequential(neuron.IFNode(v_threshold=0.6), nn.AvgPool2d(2, 2))
        self.fc = nn.Sequential(
            nn.Flatten(), nn.Linear(8, 2 * OUTPUTS), neuron.LIFNode(v_threshold=0.1)
        )
        self.boost = nn.AvgPool1d(2, 2)

    def forward(self, x):
        functional.reset_net(self)
        x = self.static_conv(x)
        out_spikes_counter = self.fc(self.spiking(x))
        for _ in range(1, self.T):
            out_spikes_counter += self.fc(self.spiking(x))
        return self.boost((out_spikes_counter / self.T).unsqueeze(1)).squeeze(1)


class Converted(nn.Module):
    """What ann2snn makes of a ReLU: VoltageScalers around an IF that subtracts."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.scale_in = VoltageScaler(0.5)
        self.sn1 = neuron.IFNode(v_threshold=1.0, v_reset=None)
        self.scale_out = VoltageScaler(2.0)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)
        self.sn2 = neuron.IFNode(v_threshold=1.0, v_reset=None)

    def forward(self, x):
        functional.reset_net(self)
        outputs = []
        for t in range(x.shape[0]):
            hidden = self.scale_out(self.sn1(self.scale_in(self.fc1(x[t]))))
            outputs.append(self.sn2(self.fc2(hidden)))
        return torch.stack(outputs, 1)


class Block(nn.Module):
    """A residual block of the user's own."""

    def __init__(self, size):
        super().__init__()
        self.fc = nn.Linear(size, size)
        self.sn = neuron.ParametricLIFNode(init_tau=2.0, v_threshold=0.4)

    def forward(self, x):
        return self.sn(self.fc(x) + x)


class Blocks(nn.Module):
    """Containers of the user's own; neurons that learn their time constant."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(INPUTS), Block(INPUTS)])

    def forward(self, x):
        functional.reset_net(self)
        outputs = []
        for frame in x:
            for block in self.blocks:
                frame = block(frame)
            outputs.append(frame)
        return torch.stack(outputs)


class OneStepNet(nn.Module):
    """One step per call; the loop, and reset_net, are outside."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = layer.Linear(INPUTS, HIDDEN), layer.Linear(HIDDEN, OUTPUTS)
        self.sn1, self.sn2 = neuron.IFNode(v_threshold=0.6), neuron.IFNode(v_threshold=0.6)

    def forward(self, x):
        return self.sn2(self.fc2(self.sn1(self.fc1(x))))


class RatesIntoHead(nn.Module):
    """Step mode "m", batch first; a head reads the firing rates."""

    def __init__(self):
        super().__init__()
        self.fc1 = layer.Linear(INPUTS, HIDDEN, step_mode="m")
        self.sn1 = neuron.LIFNode(step_mode="m", v_threshold=0.4)
        self.head = nn.Sequential(nn.Linear(HIDDEN, OUTPUTS), nn.LogSoftmax(-1))

    def forward(self, x):
        functional.reset_net(self)
        x_seq = x.permute(1, 0, 2)
        return self.head(self.sn1(self.fc1(x_seq)).mean(0))


class RepeatedFeatures(nn.Module):
    """Step mode "m"; the sample has no time axis, which forward adds."""

    def __init__(self, T=STEPS):
        super().__init__()
        self.T = T
        self.gate = nn.Parameter(torch.ones(INPUTS))
        self.net = nn.Sequential(
            layer.Linear(INPUTS, HIDDEN),
            neuron.IFNode(v_threshold=0.6),
            layer.Linear(HIDDEN, OUTPUTS),
            neuron.IFNode(v_threshold=0.6),
        )
        functional.set_step_mode(self.net, step_mode="m")

    def forward(self, x):
        functional.reset_net(self)
        return self.net((x * self.gate).unsqueeze(0).repeat(self.T, 1, 1)).mean(0)


class ActivatedStem(nn.Module):
    """A stem that NIR cannot express, computed in each step of the loop."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.SiLU())
        self.body = nn.Sequential(nn.Linear(HIDDEN, OUTPUTS), neuron.LIFNode(v_threshold=0.2))

    def forward(self, x):
        functional.reset_net(self)
        return torch.stack([self.body(torch.tanh(self.stem(frame))) for frame in x])


class LargestMembranes(nn.Module):
    """Step mode "m"; a readout that gives the largest membrane of each of its neurons."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            layer.Linear(INPUTS, HIDDEN),
            neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=0.6),
            layer.Linear(HIDDEN, OUTPUTS),
            neuron.NonSpikingLIFNode(tau=3.0, decode="max-mem"),
        )
        functional.set_step_mode(self.net[:3], step_mode="m")

    def forward(self, x):
        functional.reset_net(self)
        return self.net(x)
