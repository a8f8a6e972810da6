// Membrane potential of neurons that do not fire, at given times (jaxsnn/event/forward/readout.py).
//
// The times are sorted together with the arrivals, as entries without weights that act after
// simultaneous arrivals:
//
//     slots:  0 ... arrivals_ - 1      arrivals_ ... population.arrivals - 1
//             arrivals                 `samples` times at which v is read

#pragma once

#include "group.h"

namespace native {

template <class T>
class Readout {
  using V = Vector<T>;
  static constexpr int kLanes = kWidth<T>;

 public:
  /// `jumps`: an arrival increments v instead of j.
  Readout(const Population<T>& population, const SortedArrivals<T>& sorted, bool jumps,
          Index samples, Index threads, bool with_taus)
      : population_(population),
        sorted_(sorted),
        jumps_(jumps),
        with_taus_(with_taus),
        samples_(samples),
        arrivals_(population.arrivals - samples),
        intervals_(population, sorted),
        tiles_(population, intervals_.uniform(), intervals_.taus()),
        table_(population, Feedback<T>{}, nullptr, threads),
        box_tolerance_(lanes(), T(0)) {
    intervals_.compute_steps(threads, with_taus);
    if (has_boxes())
      compute_box_tolerances(population.weight, population.rows, int(population.neurons),
                             box_tolerance_.data());
  }

  Index lanes() const { return tiles_.padded(); }

  /// Compute one sample of the batch; `voltage`: (batch, samples, neurons).
  void forward(Index sample, T* voltage) const {
    Array<T> state(4 * lanes(), T(0));
    T *v = state.data(), *j = v + lanes(), *low = j + lanes(), *rest = low + lanes();
    for (Index n = 0; n < lanes(); ++n) {
      v[n] = T(tile(n).v_start[n % kLanes]);
      rest[n] = j[n] = T(tile(n).j_start[n % kLanes]);
    }
    for (Index arrival = 0; arrival < intervals_.used(sample); ++arrival) {
      const T* weights = table_[intervals_.row(sample, arrival + 1)];
      for (Index q = 0; q < tiles_.vectors(); ++q) {
        const Index offset = q * kLanes;
        V em, es, k;
        load_step(sample, arrival, q, em, es, k);
        V potential = load<T>(v + offset) * em + load<T>(j + offset) * k,
          current = load<T>(j + offset) * es;
        if (has_boxes()) {
          V low_part = load<T>(low + offset);
          update_box_sum<T>(current, low_part, load<T>(weights + offset), load<T>(rest + offset),
                            load<T>(&box_tolerance_[offset]));
          store<T>(low + offset, low_part);
        } else {
          (jumps_ ? potential : current) += load<T>(weights + offset);
        }
        store<T>(v + offset, potential);
        store<T>(j + offset, current);
      }
      if (const Index index = sample_index(sample, arrival); index >= 0)
        std::copy_n(v, population_.neurons, voltage + index * population_.neurons);
    }
  }

  /// Add the gradients of one sample of the batch.
  ///
  /// `cotangent`: (batch, samples, neurons); `by_weight`: (rows + 1, lanes); `parameter_gradients`:
  /// (fields, lanes), or null; `by_time`: dL/dt by the arrival's slot, or null.
  void backward(Index sample, const T* cotangent, T* by_weight, double* parameter_gradients,
                T* by_time) const {
    Array<T> state(7 * lanes(), T(0));
    T* p_v = state.data();
    T *p_j = p_v + lanes(), *v_mem = p_j + lanes(), *j_mem = v_mem + lanes();
    T *j_syn = j_mem + lanes(), *by_mem = j_syn + lanes(), *by_syn = by_mem + lanes();
    for (Index arrival = intervals_.used(sample) - 1; arrival >= 0; --arrival) {
      if (const Index index = sample_index(sample, arrival); index >= 0)
        for (Index n = 0; n < population_.neurons; ++n)
          p_v[n] += cotangent[index * population_.neurons + n];
      const Index row = intervals_.row(sample, arrival + 1);
      const T* weights_of_row = table_[row];
      T* gradient_row = by_weight + row * lanes();
      V time_gradient = {};
      for (Index q = 0; q < tiles_.vectors(); ++q) {
        const Index offset = q * kLanes;
        const V weights = load<T>(weights_of_row + offset);
        V v = load<T>(p_v + offset), j = load<T>(p_j + offset);
        // The arrival at the end of the interval adds its row of weights: its gradient is the
        // costate there.
        store<T>(gradient_row + offset, load<T>(gradient_row + offset) + (jumps_ ? v : j));
        if (by_time) {  // dL/dt of the arrival: -P . A e W, see `TileBackward::walk`
          V leak, gain, synaptic;
          rates(q, leak, gain, synaptic);
          time_gradient += weights * (jumps_ ? v * leak : j * synaptic - v * gain);
        }
        V em, es, k;
        load_step(sample, arrival, q, em, es, k);
        if (with_taus_) {
          V v_mem_later = load<T>(v_mem + offset), j_mem_later = load<T>(j_mem + offset),
            j_syn_later = load<T>(j_syn + offset);
          store<T>(by_mem + offset,
                   load<T>(by_mem + offset) + weights * (jumps_ ? v_mem_later : j_mem_later));
          if (!jumps_) store<T>(by_syn + offset, load<T>(by_syn + offset) + weights * j_syn_later);
          V em_mem, k_mem, es_syn, k_syn;
          load_step_derivatives(sample, arrival, q, em_mem, k_mem, es_syn, k_syn);
          store<T>(j_mem + offset, v_mem_later * k + j_mem_later * es + v * k_mem);
          store<T>(v_mem + offset, v_mem_later * em + v * em_mem);
          store<T>(j_syn + offset, j_syn_later * es + v * k_syn + j * es_syn);
        }
        store<T>(p_j + offset, v * k + j * es);
        store<T>(p_v + offset, v * em);
      }
      const Index slot = sorted_.slot[sorted_.first(sample) + arrival];
      if (by_time && slot < arrivals_) by_time[slot] = horizontal_sum(time_gradient);
    }
    if (!parameter_gradients) return;
    for (Index n = 0; n < population_.neurons; ++n) {
      const double v = tile(n).v_start[n % kLanes], j = tile(n).j_start[n % kLanes];
      parameter_gradients[kStart * lanes() + n] += p_v[n];
      parameter_gradients[kCurrent * lanes() + n] += p_j[n];
      parameter_gradients[kTauMem * lanes() + n] += v * v_mem[n] + j * j_mem[n] + by_mem[n];
      parameter_gradients[kTauSyn * lanes() + n] += j * j_syn[n] + by_syn[n];
    }
  }

 private:
  /// Return whether an arrival opens or closes a box.
  bool has_boxes() const { return !jumps_ && intervals_.taus().ratio == Ratio::kConstantCurrent; }

  const Tile<T, 1>& tile(Index neuron) const { return tiles_.tile(neuron / kLanes); }

  double duration(Index sample, Index interval) const {
    return intervals_.edge(sample, interval + 1) - intervals_.edge(sample, interval);
  }

  void load_step(Index sample, Index interval, Index q, V& em, V& es, V& k) const {
    if (intervals_.uniform()) {
      const Step<T> step = intervals_.steps(sample)[interval];
      em = broadcast(step.em);
      es = broadcast(step.es);
      k = broadcast(step.k);
    } else {
      V bound;
      tiles_.tile(q).compute_step(0, duration(sample, interval), em, es, k, bound);
    }
  }

  void load_step_derivatives(Index sample, Index interval, Index q, V& em_mem, V& k_mem, V& es_syn,
                             V& k_syn) const {
    if (intervals_.uniform()) {
      const StepDerivatives<T>& step = intervals_.step_derivatives(sample)[interval];
      em_mem = broadcast(step.em_mem);
      k_mem = broadcast(step.k_mem);
      es_syn = broadcast(step.es_syn);
      k_syn = broadcast(step.k_syn);
    } else {
      tiles_.tile(q).compute_step_derivatives(0, duration(sample, interval), em_mem, k_mem, es_syn,
                                              k_syn);
    }
  }

  void rates(Index q, V& leak, V& gain, V& synaptic) const {
    for (int n = 0; n < kLanes; ++n) {
      const TimeConstants& taus = tiles_.tile(q).taus[n];
      leak[n] = T(taus.leak);
      gain[n] = T(taus.gain);
      synaptic[n] = T(taus.synaptic);
    }
  }

  /// Return the index of a reading on the axes (batch, samples), or -1 for an arrival.
  Index sample_index(Index sample, Index arrival) const {
    const Index slot = sorted_.slot[sorted_.first(sample) + arrival];
    return slot < arrivals_ ? -1 : sample * samples_ + slot - arrivals_;
  }

  const Population<T>& population_;
  const SortedArrivals<T>& sorted_;
  bool jumps_, with_taus_;
  Index samples_, arrivals_;
  Intervals<T> intervals_;
  PopulationTiles<T> tiles_;
  DenseRows<T> table_;
  Array<T> box_tolerance_;  // for each neuron, see `compute_box_tolerances`
};

/// Compute the membrane potentials (batch, samples, neurons).
template <class T>
void readout_forward(const Population<T>& population, const SortedArrivals<T>& sorted, bool jumps,
                     Index samples, Index threads, T* voltage) {
  if (population.batch == 0 || population.neurons == 0) return;
  const Readout<T> readout(population, sorted, jumps, samples, threads, false);
  ThreadPool::shared().run(population.batch, threads,
                           [&](Index sample) { readout.forward(sample, voltage); });
}

/// Compute the gradients with respect to weight, parameters and arrival times (batch, arrivals
/// without readings).
template <class T>
void readout_backward(const Population<T>& population, const SortedArrivals<T>& sorted, bool jumps,
                      Index samples, Index threads, const T* cotangent,
                      const Gradients<T>& gradients) {
  const Index arrivals = population.arrivals - samples;
  zero_gradients(population, gradients, population.batch * arrivals);
  if (population.batch == 0 || population.neurons == 0) return;
  const Readout<T> readout(population, sorted, jumps, samples, threads, gradients.with_taus());
  PartialGradients<T> partial_gradients(population, readout.lanes(), threads, gradients);
  partial_gradients.run([&](Index sample, T* by_weight, double* parameter_gradients, Index) {
    readout.backward(sample, cotangent, by_weight, parameter_gradients,
                     gradients.time ? gradients.time + sample * arrivals : nullptr);
  });
}

}  // namespace native
