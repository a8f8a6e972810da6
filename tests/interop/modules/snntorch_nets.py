"""Networks of snnTorch as people write them: a loop over time in `forward`, and what it returns."""

import itertools
from typing import NamedTuple

import snntorch as snn
import torch
import torch.nn.functional as F
from snntorch import spikegen, surrogate, utils
from torch import nn

INPUTS, HIDDEN, OUTPUTS, STEPS = 5, 6, 4, 8


class StaticImage(nn.Module):
    """The same input in each step; two lists, stacked."""

    def __init__(self, beta=0.9, num_steps=STEPS):
        super().__init__()
        self.num_steps = num_steps
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.lif1 = snn.Leaky(beta=beta)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)
        self.lif2 = snn.Leaky(beta=beta)

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec = []
        mem2_rec = []
        for _step in range(self.num_steps):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class TimeFirst(StaticImage):
    """x[t]; the number of steps from the shape; spikes only."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes = []
        for t in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


class BatchFirst(StaticImage):
    """x[:, t]; results stacked along the second axis."""

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        outputs = []
        for t in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs, dim=1)


class TimeLast(StaticImage):
    """x[..., t]; results stacked along the last axis, and summed there."""

    def forward(self, x):
        mem1, mem2 = None, None
        outputs = []
        for t in range(x.shape[-1]):
            spk1, mem1 = self.lif1(self.fc1(x[..., t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs, -1).sum(-1)


class Iterated(StaticImage):
    """for x_t in x; the mean over time."""

    def forward(self, x):
        mem1 = torch.zeros(x.shape[1], HIDDEN)
        mem2 = torch.zeros(x.shape[1], OUTPUTS)
        outputs = []
        for x_t in x:
            spk1, mem1 = self.lif1(self.fc1(x_t), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs).mean(dim=0)


class Unbound(StaticImage):
    """x.unbind(0), with enumerate; the maximum of the membranes over time."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        membranes = []
        for _number, frame in enumerate(x.unbind(0)):
            spk1, mem1 = self.lif1(self.fc1(frame), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            membranes.append(mem2)
        return torch.stack(membranes, dim=0).max(dim=0)[0]


class Permuted(StaticImage):
    """Batch first in the data, time first in the loop; the last membrane only."""

    def __init__(self):
        super().__init__()
        self.lif2 = snn.Leaky(beta=0.8, reset_mechanism="none")

    def forward(self, x):
        x = x.permute(1, 0, 2)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        for t in range(len(x)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
        return mem2


class Transposed(StaticImage):
    """transpose before the loop, and after it."""

    def forward(self, x):
        x = x.transpose(0, 1)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs).transpose(0, 1)


class Split(StaticImage):
    """torch.split along time, and squeeze."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        total = 0
        for part in torch.split(x, 1, dim=0):
            spk1, mem1 = self.lif1(self.fc1(part.squeeze(0)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            total = total + spk2
        return total


class Chunked(StaticImage):
    """torch.chunk along time; zip of several lists."""

    def forward(self, x):
        state1, state2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        pairs = []
        for part in torch.chunk(x, x.shape[1], dim=1):
            spk1, state1 = self.lif1(self.fc1(part[:, 0]), state1)
            pairs.append(self.lif2(self.fc2(spk1), state2))
            state2 = pairs[-1][1]
        spikes, membranes = zip(*pairs, strict=True)
        return torch.stack(spikes), torch.stack(membranes)


class StepsAsArgument(StaticImage):
    """forward(x, num_steps) with a default."""

    def forward(self, x, num_steps=STEPS):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for _ in range(num_steps):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs, dim=0).sum(dim=0) / num_steps


class Expanded(StaticImage):
    """x.unsqueeze(0).expand(T, ...) before the loop."""

    def forward(self, x):
        frames = x.unsqueeze(0).expand(self.num_steps, -1, -1)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for t in range(self.num_steps):
            spk1, mem1 = self.lif1(self.fc1(frames[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class Repeated(StaticImage):
    """x.repeat(T, 1, 1) before the loop, a scale factor behind it."""

    def forward(self, x):
        frames = x.repeat(self.num_steps, 1, 1)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for t in range(self.num_steps):
            spk1, mem1 = self.lif1(self.fc1(frames[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return 10 * torch.stack(outputs).mean(0)


class HiddenStates(nn.Module):
    """Layers that keep their membranes, put back by utils.reset; a Sequential called in a loop."""

    def __init__(self):
        super().__init__()
        grad = surrogate.fast_sigmoid(slope=25)
        self.net = nn.Sequential(
            nn.Linear(INPUTS, HIDDEN),
            snn.Leaky(beta=0.9, spike_grad=grad, init_hidden=True),
            nn.Linear(HIDDEN, OUTPUTS),
            snn.Leaky(beta=0.9, spike_grad=grad, init_hidden=True, output=True),
        )

    def forward(self, data):
        utils.reset(self.net)
        spk_rec = []
        for step in range(data.size(0)):
            spk_out, _mem_out = self.net(data[step])
            spk_rec.append(spk_out)
        return torch.stack(spk_rec)


class ManySynaptic(nn.Module):
    """Synaptic neurons, whose states are two tensors; log_softmax of the sum."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.lif1 = snn.Synaptic(alpha=0.7, beta=0.8)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)
        self.lif2 = snn.Synaptic(alpha=0.6, beta=0.9, reset_mechanism="zero")

    def forward(self, x):
        syn1, mem1 = self.lif1.init_synaptic()
        syn2, mem2 = self.lif2.init_synaptic()
        spk2_rec = []
        for t in range(x.size(0)):
            spk1, syn1, mem1 = self.lif1(self.fc1(x[t]), syn1, mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            spk2_rec.append(spk2)
        return F.log_softmax(torch.stack(spk2_rec).sum(0), dim=1)


class LayerList(nn.Module):
    """Layers and neurons in ModuleLists, states in a list."""

    def __init__(self, sizes=(INPUTS, HIDDEN, HIDDEN, OUTPUTS)):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)
        )
        self.neurons = nn.ModuleList(snn.Leaky(beta=0.85) for _ in sizes[1:])

    def forward(self, x):
        states = [neuron.init_leaky() for neuron in self.neurons]
        outputs = []
        for t in range(x.shape[0]):
            signal = x[t]
            for i, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
                signal, states[i] = neuron(layer(signal), states[i])
            outputs.append(signal)
        return torch.stack(outputs)


class StateDictionary(StaticImage):
    """States in a dictionary; results in one, too."""

    def forward(self, x):
        mem = {"lif1": self.lif1.init_leaky(), "lif2": self.lif2.init_leaky()}
        record = {"spikes": [], "membranes": []}
        for t in range(x.shape[0]):
            spk, mem["lif1"] = self.lif1(self.fc1(x[t]), mem["lif1"])
            spk, mem["lif2"] = self.lif2(self.fc2(spk), mem["lif2"])
            record["spikes"].append(spk)
            record["membranes"].append(mem["lif2"])
        return {name: torch.stack(parts) for name, parts in record.items()}


class OneStep(StaticImage):
    """One step per call: forward(x, spk, mem) -> spk, mem."""

    def __init__(self):
        super().__init__()
        self.fc_back = nn.Linear(OUTPUTS, HIDDEN, bias=False)

    def forward(self, x, mem1=None, mem2=None):
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
        return spk2, mem1, mem2


class Membranes(NamedTuple):
    """States of a network."""

    first: torch.Tensor
    second: torch.Tensor


class NamedStates(StaticImage):
    """States in a NamedTuple, made anew in each step."""

    def step(self, x, state):
        spk, first = self.lif1(self.fc1(x), state.first)
        spk, second = self.lif2(self.fc2(spk), state.second)
        return spk, Membranes(first, second)

    def forward(self, x):
        state = Membranes(self.lif1.init_leaky(), self.lif2.init_leaky())
        outputs = []
        for frame in x:
            spk, state = self.step(frame, state)
            outputs.append(spk)
        return torch.stack(outputs)


class Cell(nn.Module):
    """A layer and its neurons, which takes and gives its states as *states."""

    def __init__(self, inputs, outputs, neuron):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.neuron = neuron

    def forward(self, x, *states):
        return self.neuron(self.fc(x), *states)


class StarredStates(nn.Module):
    """Cells of the user's own; spk, *states = cell(x, *states)."""

    def __init__(self):
        super().__init__()
        self.first = Cell(INPUTS, HIDDEN, snn.Synaptic(alpha=0.6, beta=0.8))
        self.second = Cell(HIDDEN, OUTPUTS, snn.Leaky(beta=0.9))

    def forward(self, x):
        states1 = self.first.neuron.init_synaptic()
        states2 = (self.second.neuron.init_leaky(),)
        outputs = []
        for t in range(x.shape[0]):
            spk1, *states1 = self.first(x[t], *states1)
            spk2, *states2 = self.second(spk1, *states2)
            outputs.append(spk2)
        return torch.stack(outputs)


class StatesOnSelf(StaticImage):
    """Membranes as attributes of the network, set at the start."""

    def forward(self, x):
        self.mem1 = self.lif1.init_leaky()
        self.mem2 = self.lif2.init_leaky()
        self.counts = torch.zeros(x.shape[1], OUTPUTS)
        for t in range(x.shape[0]):
            spk1, self.mem1 = self.lif1(self.fc1(x[t]), self.mem1)
            spk2, self.mem2 = self.lif2(self.fc2(spk1), self.mem2)
            self.counts = self.counts + spk2
        return self.counts


class Filled(StaticImage):
    """Results written into a tensor that was made before the loop."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = torch.zeros(x.shape[0], x.shape[1], OUTPUTS)
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            outputs[t], mem2 = self.lif2(self.fc2(spk1), mem2)
        return outputs


class LatencyCoded(StaticImage):
    """An encoder in front: the first spikes of intensities."""

    def forward(self, x):
        spk_in = spikegen.latency(x, num_steps=self.num_steps, normalize=True, linear=True)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for t in range(self.num_steps):
            spk1, mem1 = self.lif1(self.fc1(spk_in[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class StemAndHead(StaticImage):
    """A stem that is computed once, a Linear head behind the loop, softmax."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(INPUTS, INPUTS)
        self.head = nn.Linear(OUTPUTS, 3)

    def forward(self, x):
        current = self.fc1(torch.relu(self.stem(x)))
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes = []
        for _ in range(self.num_steps):
            spk1, mem1 = self.lif1(current, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        rates = torch.stack(spikes).mean(0)
        return F.softmax(self.head(rates), dim=-1)


class ConvolutionalMaxPool(nn.Module):
    """Max pooling of values in front of the neurons, by a function; two heads of results."""

    def __init__(self, num_steps=STEPS):
        super().__init__()
        self.num_steps = num_steps
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.lif1 = snn.Leaky(beta=0.8)
        self.conv2 = nn.Conv2d(2, 3, 2)
        self.lif2 = snn.Leaky(beta=0.8)
        self.fc1 = nn.Linear(3, OUTPUTS)
        self.lif3 = snn.Leaky(beta=0.8)

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        mem3 = self.lif3.init_leaky()
        spk3_rec = []
        mem3_rec = []
        batch_size = x.shape[0]
        for _step in range(self.num_steps):
            cur1 = F.max_pool2d(self.conv1(x), 2)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = F.max_pool2d(self.conv2(spk1), 2)
            spk2, mem2 = self.lif2(cur2, mem2)
            cur3 = self.fc1(spk2.view(batch_size, -1))
            spk3, mem3 = self.lif3(cur3, mem3)
            spk3_rec.append(spk3)
            mem3_rec.append(mem3)
        return torch.stack(spk3_rec, dim=0), torch.stack(mem3_rec, dim=0)


class SequentialMaxPool(nn.Module):
    """Convolutions and max pooling of values in one Sequential of layers that keep their states."""

    def __init__(self):
        super().__init__()
        options = {"beta": 0.7, "init_hidden": True}
        self.net = nn.Sequential(
            nn.Conv2d(1, 2, 3),
            nn.MaxPool2d(2),
            snn.Leaky(**options),
            nn.Flatten(),
            nn.Linear(2 * 4, OUTPUTS),
            snn.Leaky(**options, output=True),
        )

    def forward(self, data):
        utils.reset(self.net)
        spikes = []
        for step in range(data.size(0)):
            spk_out, _ = self.net(data[step])
            spikes.append(spk_out)
        return torch.stack(spikes)


class Recurrent(nn.Module):
    """RLeaky, which takes its own spikes."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.rlif1 = snn.RLeaky(beta=0.8, linear_features=HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)
        self.lif2 = snn.Leaky(beta=0.8, reset_mechanism="none")

    def forward(self, x):
        spk1, mem1 = self.rlif1.init_rleaky()
        mem2 = self.lif2.init_leaky()
        membranes = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.rlif1(self.fc1(x[t]), spk1, mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            membranes.append(mem2)
        return torch.stack(membranes)


class AlphaNeurons(nn.Module):
    """Alpha neurons, with four results of a step."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.lif1 = snn.Alpha(alpha=0.9, beta=0.6)
        self.fc2 = nn.Linear(HIDDEN, OUTPUTS)
        self.lif2 = snn.Alpha(alpha=0.8, beta=0.5, reset_mechanism="subtract")

    def forward(self, x):
        syn_exc1, syn_inh1, mem1 = self.lif1.init_alpha()
        syn_exc2, syn_inh2, mem2 = self.lif2.init_alpha()
        outputs = []
        for t in range(x.shape[0]):
            spk1, syn_exc1, syn_inh1, mem1 = self.lif1(self.fc1(x[t]), syn_exc1, syn_inh1, mem1)
            spk2, syn_exc2, syn_inh2, mem2 = self.lif2(self.fc2(spk1), syn_exc2, syn_inh2, mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class Normalised(StaticImage):
    """LayerNorm and ReLU of values, dropout between the cells."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for t in range(x.shape[0]):
            cur1 = self.activation(self.norm(self.fc1(x[t])))
            spk1, mem1 = self.lif1(cur1, mem1)
            spk2, mem2 = self.lif2(self.fc2(self.dropout(spk1)), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class Decoder(nn.Module):
    """Transposed convolutions, as in an autoencoder."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Conv2d(1, 2, 3, stride=2)
        self.lif1 = snn.Leaky(beta=0.8)
        self.decode = nn.ConvTranspose2d(2, 1, 3, stride=2)
        self.lif2 = snn.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.encode(x[t]), mem1)
            spk2, mem2 = self.lif2(self.decode(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class WithParameter(nn.Module):
    """x @ W with a parameter of the network itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(INPUTS, OUTPUTS))
        self.lif = snn.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.init_leaky()
        outputs = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(x[t] @ self.weight, mem)
            outputs.append(spk)
        return torch.stack(outputs)


class MyLeaky(snn.Leaky):
    """A neuron of the framework with other defaults."""

    def __init__(self):
        super().__init__(beta=0.75, threshold=0.8, reset_mechanism="zero")


class Subclassed(StaticImage):
    """Neurons of a subclass; empty containers and identities between layers."""

    def __init__(self):
        super().__init__()
        self.lif1, self.lif2 = MyLeaky(), MyLeaky()
        self.shortcut, self.nothing = nn.Identity(), nn.Sequential()

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(self.nothing(x[t])), mem1)
            spk2, mem2 = self.lif2(self.fc2(self.shortcut(spk1)), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class Residual(nn.Module):
    """Spikes of an earlier layer are added to a later one's current."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.lif1 = snn.Leaky(beta=0.8)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.lif2 = snn.Leaky(beta=0.8)
        self.fc3 = nn.Linear(HIDDEN, OUTPUTS)
        self.lif3 = snn.Leaky(beta=0.8, reset_mechanism="none")

    def forward(self, x):
        mem1, mem2, mem3 = (lif.init_leaky() for lif in (self.lif1, self.lif2, self.lif3))
        hidden, membranes = [], []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1) + spk1, mem2)
            _, mem3 = self.lif3(self.fc3(spk2), mem3)
            hidden.append(spk2)
            membranes.append(mem3)
        return torch.stack(membranes), torch.stack(hidden)


class Predicted(StaticImage):
    """argmax of the counts."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        total = 0
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            total += spk2
        return total.argmax(dim=1)


class LinearHead(StaticImage):
    """A Linear head inside the loop: the scores are values, averaged over time."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(OUTPUTS, 3)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        scores = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            scores.append(self.head(spk2))
        return torch.stack(scores).mean(0)


class RectifiedHead(LinearHead):
    """LinearHead with a ReLU of the scores."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        scores = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            scores.append(torch.relu(self.head(spk2)))
        return torch.stack(scores).sum(0)


class AllSpikes(StaticImage):
    """The spikes of both layers, as for a cost of activity."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        hidden, outputs = [], []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            hidden.append(spk1)
            outputs.append(spk2)
        return torch.stack(hidden), torch.stack(outputs)


class SpikesAndScores(LinearHead):
    """Spikes, and the scores that a Linear computes from them."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, scores = [], []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            scores.append(self.head(spk2))
        return torch.stack(scores), torch.stack(spikes)


class SpikesAndMembranes(StaticImage):
    """Spikes of the hidden layer, membranes of the last, which reset."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        hidden, membranes = [], []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            hidden.append(spk1)
            membranes.append(mem2)
        return torch.stack(membranes), torch.stack(hidden)


class TwoBranches(StaticImage):
    """Two branches of neurons, whose spikes are added."""

    def __init__(self):
        super().__init__()
        self.shortcut = nn.Linear(INPUTS, OUTPUTS)
        self.lif3 = snn.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2, mem3 = (lif.init_leaky() for lif in (self.lif1, self.lif2, self.lif3))
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk3, mem3 = self.lif3(self.shortcut(x[t]), mem3)
            outputs.append(spk2 + spk3)
        return torch.stack(outputs)


class ResetEachCall(StaticImage):
    """One step per call, with states of zeros in each call."""

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        current = self.fc2(spk1)
        spk2, _ = self.lif2(current, torch.zeros_like(current))
        return spk2


class ResetReadout(StaticImage):
    """ResetEachCall with a membrane as the result."""

    def forward(self, x):
        spk1, _ = self.lif1(self.fc1(x), self.lif1.reset_mem())
        _, mem2 = self.lif2(self.fc2(spk1), self.lif2.reset_mem())
        return mem2


class ResetInLoop(StaticImage):
    """The first layer is reset in each step of the loop; the second layer keeps its states."""

    def forward(self, x):
        mem2 = self.lif2.reset_mem()
        outputs = []
        for t in range(x.shape[0]):
            spk1, _ = self.lif1(self.fc1(x[t]), self.lif1.reset_mem())
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class Windows(StaticImage):
    """Two nested loops over time: over windows, and over the steps of each window."""

    def forward(self, x):  # batch, steps, channels, windows
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        windows = []
        for window in range(x.shape[-1]):
            spikes = []
            for step in range(x.shape[1]):
                spk1, mem1 = self.lif1(self.fc1(x[:, step, :, window]), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                spikes.append(spk2)
            windows.append(torch.stack(spikes, dim=1))
        return torch.stack(windows, dim=-1)


class FlatAlready(nn.Module):
    """A Sequential that begins with Flatten of a flat input; its hidden states are reset layer by layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(INPUTS, HIDDEN),
            snn.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(HIDDEN, OUTPUTS),
            snn.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    def forward(self, x):
        for layer in self.layers:
            if isinstance(layer, snn.Leaky):
                layer.reset_mem()
        spikes, membranes = [], []
        for t in range(x.size(0)):
            spk, mem = self.layers(x[t, :])
            spikes.append(spk)
            membranes.append(mem)
        return torch.stack(spikes), torch.stack(membranes)


class Signals(nn.Module):
    """Max pooling of signals, then of features, in front of the neurons."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 3)
        self.lif1 = snn.Leaky(beta=0.8)
        self.fc = nn.Linear(9, 2 * OUTPUTS)
        self.lif2 = snn.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        outputs = []
        for _step in range(STEPS):
            spk1, mem1 = self.lif1(F.max_pool1d(self.conv(x), 2), mem1)
            spk2, mem2 = self.lif2(F.max_pool1d(self.fc(spk1.view(x.shape[0], -1)), 2), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class Reconstruction(nn.Module):
    """An autoencoder: one loop computes a code of spikes, a second loop decodes it into an image."""

    def __init__(self):
        super().__init__()
        lif = {"beta": 0.8, "init_hidden": True}
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2),
            snn.Leaky(**lif),
            nn.Flatten(),
            nn.Linear(8, HIDDEN),
            snn.Leaky(**lif, output=True),
        )
        self.widen = nn.Sequential(nn.Linear(HIDDEN, 8), snn.Leaky(**lif))
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (2, 2, 2)),
            snn.Leaky(**lif),
            nn.ConvTranspose2d(2, 2, 3, stride=(2, 1), padding=1, output_padding=(1, 0)),
            nn.BatchNorm2d(2),
            snn.Leaky(**lif),
            nn.ConvTranspose2d(2, 1, 3, padding=1, stride=2, output_padding=1),
            snn.Leaky(**lif, output=True, reset_mechanism="none"),
        )

    def forward(self, x):
        for part in (self.encoder, self.widen, self.decoder):
            utils.reset(part)
        codes = []
        for _step in range(STEPS):
            spk, _ = self.encoder(x)
            codes.append(spk)
        codes = torch.stack(codes, dim=2)
        images = []
        for step in range(STEPS):
            _, mem = self.decoder(self.widen(codes[..., step]))
            images.append(mem)
        return torch.stack(images, dim=4)[..., -1]


class SkipConnections(nn.Module):
    """A small U-Net: upsampled spikes are joined to those of an earlier layer; a head reads the rates."""

    def __init__(self):
        super().__init__()
        lif = {"beta": 0.8, "init_hidden": True}
        self.down = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), snn.Leaky(**lif))
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), snn.Leaky(**lif))
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.last = nn.Sequential(nn.Conv2d(5, 2, 3, padding=1), snn.Leaky(**lif))
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, x):
        utils.reset(self)
        total = 0
        for t in range(x.shape[0]):
            down = self.down(x[t])
            bottom = self.bottom(self.pool(down))
            total = total + self.last(torch.cat([self.up(bottom), down], dim=1))
        return self.head(total / x.shape[0])


class MembranesOnward(nn.Module):
    """One layer receives the membranes of neurons that reset, another layer their spikes."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(INPUTS, HIDDEN)
        self.lif1 = snn.Leaky(beta=0.8)
        self.fc2, self.fc3 = nn.Linear(HIDDEN, OUTPUTS), nn.Linear(HIDDEN, OUTPUTS)
        self.lif2 = snn.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(mem1) + self.fc3(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class BothRecorded(StaticImage):
    """The membranes of the first layer are returned before the spikes of the second one."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        membranes, spikes = [], []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            membranes.append(mem1)
            spikes.append(spk2)
        return torch.stack(membranes), torch.stack(spikes)


class NeverReset(StaticImage):
    """Neurons without a reset whose spikes feed a layer."""

    def __init__(self):
        super().__init__()
        self.lif1 = snn.Leaky(beta=0.7, reset_mechanism="none")
        self.lif2 = snn.Leaky(beta=0.7, threshold=0.6)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class TwoParts(nn.Module):
    """A layer for each of two groups of input channels; their spikes are joined."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(INPUTS - 2, 3)
        self.lif1, self.lif2 = snn.Leaky(beta=0.9), snn.Leaky(beta=0.7)
        self.fc = nn.Linear(6, OUTPUTS)
        self.lif3 = snn.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2, mem3 = (lif.reset_mem() for lif in (self.lif1, self.lif2, self.lif3))
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.left(x[t, :, :2]), mem1)
            spk2, mem2 = self.lif2(self.right(x[t, :, 2:]), mem2)
            spk3, mem3 = self.lif3(self.fc(torch.cat((spk1, spk2), dim=1)), mem3)
            outputs.append(spk3)
        return torch.stack(outputs)


class StemInLoop(StaticImage):
    """A LeakyReLU and a tanh, for which NIR has no nodes, before the first neuron of each time step."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.LeakyReLU(0.1))

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        outputs = []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(torch.tanh(self.stem(x[t]))), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs)


class Differences(StaticImage):
    """The neurons receive the change of the input since the previous step, 0 in the first step."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        previous = x[:, 0]
        outputs = []
        for t in range(x.shape[1]):
            change = x[:, t] - previous
            previous = x[:, t]
            spk1, mem1 = self.lif1(self.fc1(4 * change), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return torch.stack(outputs, dim=1)


class ScoresOfOneStep(StaticImage):
    """One time step per call: tanh in front of the layers, log_softmax behind them."""

    def forward(self, x, mem1=None, mem2=None):
        x = torch.tanh(2 * x)
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
        return torch.log_softmax(spk2, dim=1), mem1, mem2
