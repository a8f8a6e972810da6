// The voltage of neurons that do not fire, at given times: what jaxsnn/event/forward/readout.py does.
//
// Samples stand among the arrivals in the order of time, behind those of the same time, and weigh
// nothing: they are the slots from `population.arrivals - samples` on.

#pragma once

#include "group.h"

namespace native {

template <class T>
class Readout {
  using V = Vector<T>;
  static constexpr int kLanes = kWidth<T>;

 public:
  /// `jumps`: an arrival moves v, and not j.
  Readout(const Population<T>& population, const SortedArrivals<T>& sorted, bool jumps, Index samples,
          Index threads, bool with_taus)
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
    if (boxes()) compute_box_tolerances(population.weight, population.rows, int(population.neurons), box_tolerance_.data());
  }

  Index lanes() const { return tiles_.padded(); }

  /// One sample of the batch; `voltage`: (batch, samples, neurons).
  void forward(Index sample, T* voltage) const {
    Array<T> state(4 * lanes(), T(0));
    T *v = state.data(), *j = v + lanes(), *low = j + lanes(), *rest = low + lanes();
    for (Index n = 0; n < lanes(); ++n) {
      v[n] = T(part(n).v_start[n % kLanes]);
      rest[n] = j[n] = T(part(n).j_start[n % kLanes]);
    }
    for (Index number = 0; number < intervals_.used(sample); ++number) {
      const T* weights = table_[intervals_.row(sample, number + 1)];
      for (Index q = 0; q < tiles_.vectors(); ++q) {
        const Index at = q * kLanes;
        V em, es, k;
        step(sample, number, q, em, es, k);
        V now = load<T>(v + at) * em + load<T>(j + at) * k, current = load<T>(j + at) * es;
        if (boxes()) {
          V left = load<T>(low + at);
          update_box_sum<T>(current, left, load<T>(weights + at), load<T>(rest + at), load<T>(&box_tolerance_[at]));
          store<T>(low + at, left);
        } else {
          (jumps_ ? now : current) += load<T>(weights + at);
        }
        store<T>(v + at, now);
        store<T>(j + at, current);
      }
      if (const Index place = sampled(sample, number); place >= 0)
        std::copy_n(v, population_.neurons, voltage + place * population_.neurons);
    }
  }

  /// Adds to the gradients of one sample of the batch.
  ///
  /// `cotangent`: like the voltages; `by_weight`: like the table; `own`: (fields, lanes), or null;
  /// `by_time`: of each slot of an arrival, or null.
  void backward(Index sample, const T* cotangent, T* by_weight, double* own, T* by_time) const {
    Array<T> state(7 * lanes(), T(0));
    T* p_v = state.data();
    T *p_j = p_v + lanes(), *v_mem = p_j + lanes(), *j_mem = v_mem + lanes();
    T *j_syn = j_mem + lanes(), *by_mem = j_syn + lanes(), *by_syn = by_mem + lanes();
    for (Index number = intervals_.used(sample) - 1; number >= 0; --number) {
      if (const Index place = sampled(sample, number); place >= 0)
        for (Index n = 0; n < population_.neurons; ++n)
          p_v[n] += cotangent[place * population_.neurons + n];
      const Index number_of_row = intervals_.row(sample, number + 1);
      const T* of_table = table_[number_of_row];
      T* by_row = by_weight + number_of_row * lanes();
      V moved = {};
      for (Index q = 0; q < tiles_.vectors(); ++q) {
        const Index at = q * kLanes;
        const V weights = load<T>(of_table + at);
        V v = load<T>(p_v + at), j = load<T>(p_j + at);
        // the arrival at the interval's end: W e is added to the state
        store<T>(by_row + at, load<T>(by_row + at) + (jumps_ ? v : j));
        if (by_time) {  // - P . A e W
          V leak, gain, synaptic;
          rates(q, leak, gain, synaptic);
          moved += weights * (jumps_ ? v * leak : j * synaptic - v * gain);
        }
        V em, es, k;
        step(sample, number, q, em, es, k);
        if (with_taus_) {
          V of_v = load<T>(v_mem + at), of_j = load<T>(j_mem + at), of_syn = load<T>(j_syn + at);
          store<T>(by_mem + at, load<T>(by_mem + at) + weights * (jumps_ ? of_v : of_j));
          if (!jumps_) store<T>(by_syn + at, load<T>(by_syn + at) + weights * of_syn);
          V em_mem, k_mem, es_syn, k_syn;
          step_by(sample, number, q, em_mem, k_mem, es_syn, k_syn);
          store<T>(j_mem + at, of_v * k + of_j * es + v * k_mem);
          store<T>(v_mem + at, of_v * em + v * em_mem);
          store<T>(j_syn + at, of_syn * es + v * k_syn + j * es_syn);
        }
        store<T>(p_j + at, v * k + j * es);
        store<T>(p_v + at, v * em);
      }
      const Index slot = sorted_.slot[sorted_.first(sample) + number];
      if (by_time && slot < arrivals_) by_time[slot] = horizontal_sum(moved);
    }
    if (!own) return;
    for (Index n = 0; n < population_.neurons; ++n) {
      const double v = part(n).v_start[n % kLanes], j = part(n).j_start[n % kLanes];
      own[kStart * lanes() + n] += p_v[n];
      own[kCurrent * lanes() + n] += p_j[n];
      own[kTauMem * lanes() + n] += v * v_mem[n] + j * j_mem[n] + by_mem[n];
      own[kTauSyn * lanes() + n] += j * j_syn[n] + by_syn[n];
    }
  }

 private:
  /// What arrives opens or closes a box.
  bool boxes() const { return !jumps_ && intervals_.taus().ratio == Ratio::kConstantCurrent; }

  const Tile<T, 1>& part(Index neuron) const { return tiles_.tile(neuron / kLanes); }

  double duration(Index sample, Index number) const {
    return intervals_.edge(sample, number + 1) - intervals_.edge(sample, number);
  }

  void step(Index sample, Index number, Index q, V& em, V& es, V& k) const {
    if (intervals_.uniform()) {
      const Step<T> step = intervals_.steps(sample)[number];
      em = broadcast(step.em);
      es = broadcast(step.es);
      k = broadcast(step.k);
    } else {
      V bound;
      tiles_.tile(q).compute_step(0, duration(sample, number), em, es, k, bound);
    }
  }

  void step_by(Index sample, Index number, Index q, V& em_mem, V& k_mem, V& es_syn,
               V& k_syn) const {
    if (intervals_.uniform()) {
      const StepDerivatives<T>& step = intervals_.step_derivatives(sample)[number];
      em_mem = broadcast(step.em_mem);
      k_mem = broadcast(step.k_mem);
      es_syn = broadcast(step.es_syn);
      k_syn = broadcast(step.k_syn);
    } else {
      tiles_.tile(q).compute_step_derivatives(0, duration(sample, number), em_mem, k_mem, es_syn, k_syn);
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

  /// The place of a sample among all of the batch, or -1 for an arrival.
  Index sampled(Index sample, Index number) const {
    const Index slot = sorted_.slot[sorted_.first(sample) + number];
    return slot < arrivals_ ? -1 : sample * samples_ + slot - arrivals_;
  }

  const Population<T>& population_;
  const SortedArrivals<T>& sorted_;
  bool jumps_, with_taus_;
  Index samples_, arrivals_;
  Intervals<T> intervals_;
  PopulationTiles<T> tiles_;
  DenseRows<T> table_;
  Array<T> box_tolerance_;  // of each neuron, under boxes (`compute_box_tolerances`)
};

/// Voltages (batch, samples, neurons).
template <class T>
void readout_forward(const Population<T>& population, const SortedArrivals<T>& sorted, bool jumps, Index samples,
                     Index threads, T* voltage) {
  if (population.batch == 0 || population.neurons == 0) return;
  const Readout<T> readout(population, sorted, jumps, samples, threads, false);
  ThreadPool::shared().run(population.batch, threads, [&](Index b) { readout.forward(b, voltage); });
}

/// Gradients by weight, lanes and the times of arrivals, (batch, arrivals without samples).
template <class T>
void readout_backward(const Population<T>& population, const SortedArrivals<T>& sorted, bool jumps, Index samples,
                      Index threads, const T* cotangent, const Gradients<T>& gradients) {
  const Index arrivals = population.arrivals - samples;
  zero_gradients(population, gradients, population.batch * arrivals);
  if (population.batch == 0 || population.neurons == 0) return;
  const Readout<T> readout(population, sorted, jumps, samples, threads, gradients.with_taus());
  PartialGradients<T> parts(population, readout.lanes(), threads, gradients);
  parts.run([&](Index b, T* by_weight, double* own, Index) {
    readout.backward(b, cotangent, by_weight, own,
                     gradients.time ? gradients.time + b * arrivals : nullptr);
  });
}

}  // namespace native
