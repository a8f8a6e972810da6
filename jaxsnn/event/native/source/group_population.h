// What the simulations of recurrent groups share: the records of events and spikes, the parameters of
// all neurons, and sums of gradients.

#pragma once

#include "weight_rows.h"

namespace native {

/// Log of the events of each sample: arrays (batch, steps). Without steps nothing is logged.
template <class T>
struct EventLog {
  T* wait;  // time since the preceding step, seconds
  /// Row of weights that arrives; from `Feedback::first_spike_row` on, the spike of a neuron; -1 -
  /// n, the end of neuron n's refractory period.
  std::int32_t* row;
  T* slope;            // dv/dt: before the spike, or after the refractory period
  std::int32_t* used;  // (batch,) number of steps
  Index steps;
  std::int32_t* origin;  // number of the spike that caused a queued event; null: no queue
};

/// Spikes of the group in the order in which they act: (batch, events).
template <class T>
struct SpikeTrain {
  T* time;
  std::int32_t* neuron;
  std::int32_t* total;  // (batch,) number of spikes, which may exceed `events`
  Index events;
};

/// Parameters of all neurons of a population, in tiles of one SIMD vector.
template <class T>
class PopulationTiles {
 public:
  using V = Vector<T>;
  using VectorTile = Tile<T, 1>;
  static constexpr int kLanes = kWidth<T>;

  PopulationTiles(const Population<T>& population, bool uniform, const TimeConstants& common_taus)
      : uniform_(uniform) {
    tiles_.reserve((population.neurons + kLanes - 1) / kLanes);
    for (Index first = 0; first < population.neurons; first += kLanes)
      tiles_.emplace_back(population, 0, first, uniform, common_taus);
    vectors_ = tiles_.size();
    for (const VectorTile& tile : tiles_)
      positive_thresholds_ = positive_thresholds_ && tile.positive;
    taus_ = common_taus;
    rates_ = Array<T>(3 * padded());
    levels_ = Array<double>(2 * padded());
    for (Index n = 0; n < padded(); ++n) {
      rates_[n] = T(taus(n).leak);
      rates_[padded() + n] = T(taus(n).synaptic);
      rates_[2 * padded() + n] = T(taus(n).gain);
      levels_[n] = tile(n / kLanes).fires_at[n % kLanes];
      levels_[padded() + n] = tile(n / kLanes).v_reset[n % kLanes];
    }
  }

  Index vectors() const { return vectors_; }
  Index padded() const { return vectors() * kLanes; }
  bool positive_thresholds() const { return positive_thresholds_; }
  const VectorTile& tile(Index q) const { return tiles_[q]; }
  const TimeConstants& taus(Index neuron) const {
    return uniform_ ? taus_ : tiles_[neuron / kLanes].taus[neuron % kLanes];
  }
  const T* leak_rates() const { return rates_.data(); }
  const T* synaptic_rates() const { return rates_.data() + padded(); }
  const T* gains() const { return rates_.data() + 2 * padded(); }
  double threshold(Index n) const { return levels_[n]; }
  double v_reset(Index n) const { return levels_[padded() + n]; }
  bool starts_above(Index n) const { return tiles_[n / kLanes].starts_above[n % kLanes]; }

  /// A time step and its coefficients, if they are the same for all neurons.
  struct TimeStep {
    double t;
    Step<T> step;
    StepDerivatives<T> derivatives;
  };

  TimeStep time_step(double t, bool derivatives) const {
    TimeStep result{t, {}, {}};
    if (!uniform_) return result;
    const Exponential slow_exponential = exponential(-t * taus_.slow);
    const double gap_expm1 =
        taus_.gap == taus_.slow ? slow_exponential.expm1 : exponential(-t * taus_.gap).expm1;
    const Flow flow = flow_from_exponentials(taus_, t, slow_exponential.value, gap_expm1);
    const double decay_of_v =
        taus_.mem_longer
            ? -slow_exponential.expm1
            : -(slow_exponential.expm1 + gap_expm1 + slow_exponential.expm1 * gap_expm1);
    const T bound = T(decay_of_v) * (1 + 2 * std::numeric_limits<T>::epsilon());
    result.step = {T(flow.em), T(flow.es), T(flow.k), std::max(bound, T(flow.k))};
    if (derivatives) {
      const FlowDerivatives tau_derivatives = flow_derivatives(taus_, t, flow);
      result.derivatives = {T(tau_derivatives.em_mem), T(tau_derivatives.k_mem),
                            T(tau_derivatives.es_syn), T(tau_derivatives.k_syn)};
    }
    return result;
  }

  bool uniform() const { return uniform_; }

  template <bool kUniform>
  void coefficients(const TimeStep& time_step, Index q, V& em, V& es, V& k, V& bound) const {
    if constexpr (kUniform) {
      em = broadcast(time_step.step.em);
      es = broadcast(time_step.step.es);
      k = broadcast(time_step.step.k);
      bound = broadcast(time_step.step.bound);
    } else {
      tiles_[q].compute_step(0, time_step.t, em, es, k, bound);
    }
  }

  void coefficients(const TimeStep& time_step, Index q, V& em, V& es, V& k, V& bound) const {
    uniform_ ? coefficients<true>(time_step, q, em, es, k, bound)
             : coefficients<false>(time_step, q, em, es, k, bound);
  }

  template <bool kUniform>
  void derivatives(const TimeStep& time_step, Index q, V& em_mem, V& k_mem, V& es_syn,
                   V& k_syn) const {
    if constexpr (kUniform) {
      em_mem = broadcast(time_step.derivatives.em_mem);
      k_mem = broadcast(time_step.derivatives.k_mem);
      es_syn = broadcast(time_step.derivatives.es_syn);
      k_syn = broadcast(time_step.derivatives.k_syn);
    } else {
      tiles_[q].compute_step_derivatives(0, time_step.t, em_mem, k_mem, es_syn, k_syn);
    }
  }

 private:
  std::vector<VectorTile> tiles_;
  Index vectors_ = 0;
  Array<T> rates_;        // (3, lanes): 1 / tau_mem, 1 / tau_syn, dv/dt per j
  Array<double> levels_;  // (2, lanes): threshold, v_reset
  bool uniform_, positive_thresholds_ = true;
  TimeConstants taus_;
};

// ---- gradients

/// dL/dt of the spikes: by neuron and slot, and in the order of the spike train.
template <class T>
struct Cotangents {
  const T* spikes;
  const T* train;
};

/// Costates of a neuron, and those with respect to its time constants.
struct NeuronCostate {
  double v, j;                                 // dL/dv and dL/dj
  double v_mem, j_mem, j_syn, by_mem, by_syn;  // sums for dL/dtau_mem and dL/dtau_syn
};

/// Return dL/dv before a spike.
///
/// `slope`: dv/dt before it. `drive`: dL/dt of the spike through all that it causes. `p`: dL/dv
/// after it. `v_mem`: see `NeuronCostate`. `parameter_gradients`: (fields, lanes) or null.
template <class T>
double propagate_through_spike(const PopulationTiles<T>& tiles, const Options& options,
                               Index neuron, double slope, double drive, double p, double v_mem,
                               bool fired_at_start, double* parameter_gradients) {
  const TimeConstants& taus = tiles.taus(neuron);
  const double reset_height = tiles.threshold(neuron) - tiles.v_reset(neuron);
  slope = std::max(slope, options.min_slope * reset_height * taus.leak);
  const double total = drive - p * reset_height * taus.leak;
  const double lam = fired_at_start ? 0.0 : -total / slope;
  if (parameter_gradients) {
    const auto add = [&](Field field, double gradient) {
      parameter_gradients[field * tiles.padded() + neuron] += gradient;
    };
    add(kThreshold, -lam);
    if (options.subtract || !fired_at_start) {
      add(kThreshold, -p);
      add(kReset, p);
      add(kTauMem, -reset_height * v_mem);
    }
  }
  return p + lam;
}

/// Add the gradients with respect to the initial state and the time constants of a neuron.
/// `costate`: at time 0.
template <class T>
void add_initial_gradients(const PopulationTiles<T>& tiles, const Options& options, Index neuron,
                           const NeuronCostate& costate, double* parameter_gradients) {
  const auto& tile = tiles.tile(neuron / PopulationTiles<T>::kLanes);
  const int lane = neuron % PopulationTiles<T>::kLanes;
  const bool starts_reset = tile.starts_above[lane] && !options.subtract;
  const double v = starts_reset ? tile.v_reset[lane] : tile.v_start[lane], j = tile.j_start[lane];
  const auto add = [&](Field field, double gradient) {
    parameter_gradients[field * tiles.padded() + neuron] += gradient;
  };
  add(starts_reset ? kReset : kStart, costate.v);
  add(kCurrent, costate.j);
  add(kTauMem, v * costate.v_mem + j * costate.j_mem + costate.by_mem);
  add(kTauSyn, j * costate.j_syn + costate.by_syn);
}

/// Set the gradients to 0; `arrivals`: size of the gradient with respect to times; `synapses`: number
/// of weights stored as lists, -1 for a table.
template <class T>
void zero_gradients(const Population<T>& population, const Gradients<T>& gradients, Index arrivals,
                    Index synapses = -1) {
  std::fill_n(gradients.weight, synapses < 0 ? population.rows * population.neurons : synapses,
              T(0));
  if (gradients.parameters)
    std::fill_n(gradients.parameters, gradients.fields * population.neurons, T(0));
  if (gradients.time) std::fill_n(gradients.time, arrivals, T(0));
}

/// Gradients of a fixed number of chunks of the batch, summed in a fixed order, so that results do
/// not depend on the number of threads. Each chunk is added as soon as all earlier chunks have been
/// added, so at most one table per thread is needed.
template <class T>
class PartialGradients {
 public:
  PartialGradients(const Population<T>& population, Index lanes, Index threads,
                   const Gradients<T>& gradients, Index synapses = -1)
      : population_(population),
        gradients_(gradients),
        lanes_(lanes),
        synapses_(synapses),
        chunks_(std::max<Index>(1, std::min<Index>(8, (population.batch + 1) / 2))),
        threads_(std::clamp<Index>(threads, 1, chunks_)),
        tables_(threads_ * size()),
        parameter_sums_(gradients.parameters ? chunks_ * kFields * lanes : 0, 0.0) {}

  /// Return the number of chunks.
  Index chunks() const { return chunks_; }

  /// Call with each sample, the chunk's gradients (table of weights; parameters, or null) and the
  /// chunk's number.
  template <class Call>
  void run(Call&& call) {
    ThreadPool::shared().run(chunks_, threads_, [&](Index chunk) {
      try {
        double* parameters =
            parameter_sums_.size() ? parameter_sums_.data() + chunk * kFields * lanes_ : nullptr;
        // Chunks in progress are fewer than `threads_` apart, so they never share a table.
        T* table = tables_.data() + chunk % threads_ * size();
        std::fill_n(table, size(), T(0));
        for (Index sample = population_.batch * chunk / chunks_;
             sample < population_.batch * (chunk + 1) / chunks_; ++sample)
          call(sample, table, parameters, chunk);
        call_in_order(chunk, [&] { add_table(table); });
      } catch (...) {
        call_in_order(-1, [&] { failed_ = true; });
        throw;
      }
    });
    add_parameters();
  }

 private:
  bool has_lists() const { return synapses_ >= 0; }
  Index size() const { return has_lists() ? synapses_ : (population_.rows + 1) * lanes_; }

  /// Wait until all earlier chunks have been added (or one has failed), then call.
  template <class Call>
  void call_in_order(Index chunk, Call&& call) {
    std::unique_lock<std::mutex> lock(mutex_);
    chunk_done_.wait(lock, [&] { return chunk < 0 || chunks_added_ == chunk || failed_; });
    call();
    if (chunk >= 0) ++chunks_added_;
    chunk_done_.notify_all();
  }

  void add_table(const T* table) {
    if (has_lists()) {
      for (Index n = 0; n < synapses_; ++n) gradients_.weight[n] += table[n];
      return;
    }
    const Index neurons = population_.neurons;
    for (Index row = 0; row < population_.rows; ++row) {
      T* const sum = gradients_.weight + row * neurons;
      const T* const table_row = table + row * lanes_;
      for (Index n = 0; n < neurons; ++n) sum[n] += table_row[n];
    }
  }

  void add_parameters() {
    if (!gradients_.parameters) return;
    const Index neurons = population_.neurons;
    for (Index field = 0; field < gradients_.fields; ++field)
      for (Index n = 0; n < neurons; ++n) {
        double sum = 0;
        for (Index chunk = 0; chunk < chunks_; ++chunk)
          sum += parameter_sums_[(chunk * kFields + field) * lanes_ + n];
        gradients_.parameters[field * neurons + n] = T(sum);
      }
  }

  const Population<T>& population_;
  const Gradients<T>& gradients_;
  Index lanes_, synapses_, chunks_, threads_;
  Array<T> tables_;
  Array<double> parameter_sums_;
  std::mutex mutex_;
  std::condition_variable chunk_done_;
  Index chunks_added_ = 0;
  bool failed_ = false;
};

}  // namespace native
