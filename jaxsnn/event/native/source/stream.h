// Incremental simulation of a single sample: events are pushed in pieces, and spikes are taken
// between them. The network consists of populations of neurons and readouts in any wiring, with
// delays and loops. All numbers are double, whatever the network's precision is.
//
// Each population is stored at the time of its last arrival or spike. Its next threshold crossing
// follows from that state alone, not from the time to which the simulation is asked to run, so
// results are the same bit for bit however the events are split into pieces. Arrivals wait in a
// queue until all simultaneous ones are known, and then act together: see docs/event_engine.md.
//
//     push ---> schedule_fan_outs ---> queue_ ---> deliver_simultaneous ---> population
//                      ^                                                         |
//                      +------------------- fire (spikes) <----------------------+
//
// A push is atomic. It runs in slices, between which Python handles signals. Until the next push
// begins it can be rolled back: the state is restored from a checkpoint made some pushes ago, and
// the events since then are simulated again, which gives the same bits. This is cheaper than a
// checkpoint per push.

#pragma once

#include <chrono>
#include <cmath>
#include <queue>
#include <stdexcept>
#include <string>
#include <tuple>

#include "group.h"

namespace native {

/// Synapses of one channel with the same delay. Their targets are listed in `Projection::neuron`;
/// if `targets_all`, they are all neurons of the population in order.
struct FanOut {
  double delay;
  Index first, count;  // range of the synapses in `Projection::weight` and `neuron`
  bool targets_all;
};

/// Synapses from a source to a population. In Python this is a `StreamWiring`, and its fan-outs are
/// called groups.
struct Projection {
  Index source, target;              // index of a population; source -1 - n: input n
  std::vector<Index> first_fan_out;  // channel c has the fan-outs from first_fan_out[c] on
  std::vector<FanOut> fan_outs;
  std::vector<double> weight;
  std::vector<std::int32_t> neuron;
};

/// A scheduled event of a population: a fan-out arrives or, if projection < 0, a neuron's
/// refractory period ends. Simultaneous events act in the order of their groups; within a group,
/// the feedback of simultaneous spikes arrives in a later round.
struct ScheduledEvent {
  double time;
  Index group, round, target, projection, fan_out, neuron;
  double value;
  bool closes;  // end of a box

  auto key() const {
    return std::make_tuple(time, group, round, target, projection, fan_out, neuron, closes, value);
  }
  bool operator>(const ScheduledEvent& other) const { return key() > other.key(); }
  bool acts_with(const ScheduledEvent& other) const {
    return time == other.time && group == other.group && round == other.round &&
           target == other.target;
  }
};

struct RecordedSpike {
  double time;
  std::int32_t population, neuron;
};

/// The mutable state of a stream. Numbers and flags of the populations are stored one after the
/// other, without padding.
struct StreamState {
  double time = 0;  // time to which the stream was run
  double round_time = -1;
  Index round = 0;
  std::vector<double> numbers;  // for each population, see `StreamPopulation::save`
  std::vector<std::int32_t> open_boxes;  // number of open boxes
  std::vector<std::uint8_t> refractory;  // whether in a refractory period
  std::vector<ScheduledEvent> queue;     // a heap
};

/// Priority queue of events whose entries can be copied.
struct ScheduleQueue : std::priority_queue<ScheduledEvent, std::vector<ScheduledEvent>,
                                           std::greater<ScheduledEvent>> {
  const std::vector<ScheduledEvent>& entries() const { return c; }
  void assign(const std::vector<ScheduledEvent>& entries) {
    c = entries;
    std::make_heap(c.begin(), c.end(), comp);
  }
};

/// Return the time until a neuron in state (v, j) crosses its threshold without further arrivals;
/// inf if it never does.
inline double crossing_ahead(const TimeConstants& taus, double v, double j, double threshold) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  constexpr double kEps = 0x1p-52;
  if (v >= threshold) return 0;
  const bool rises_to_positive = j * taus.syn + (taus.mem - taus.syn) * v > 0;
  if (j > v && j > 0 && rises_to_positive && peak_reaches(taus, v, j, threshold))
    return find_crossing(taus, v, j, threshold, kNever, false, kEps).wait;
  if (!(threshold < 0)) return kNever;
  // v decays towards 0 from below, and so crosses a negative threshold eventually.
  double end = taus.mem + taus.syn;
  for (int doubling = 0; doubling < 1100; ++doubling, end *= 2) {
    const Flow flow = flow_over(taus, end);
    if (v * flow.em + j * flow.k >= threshold)
      return find_crossing_newton(taus, v, j, threshold, end, true, kEps);
  }
  return kNever;
}

/// Dynamics of v between events: driven by a decaying current, leak only (v' = -v / tau), or a
/// constant rate (v' = j).
enum class Drive { kCurrent, kLeak, kRate };

/// A population. v is measured from the value towards which it flows: the resting potential plus,
/// with box spikes, u, the sum of the open boxes. With Drive::kRate there is no such value, and u
/// adds to j.
class StreamPopulation {
  using V = DoubleVector;
  static constexpr int kLanes = kWidth<double>;
  static constexpr double kNever = std::numeric_limits<double>::infinity();

 public:
  struct Settings {
    Drive drive;
    bool fires, once, subtract, recorded;
    bool at_equality;   // an arrival that raises v onto the threshold makes the neuron fire
    double width;       // duration of a box, seconds; 0: spikes are not boxes
    double refractory;  // refractory period, seconds
    Index group;        // populations of the same group are recurrently connected
  };

  StreamPopulation(const Population<double>& population, bool uniform, const TimeConstants& taus,
                   const Settings& settings)
      : settings(settings),
        neurons(population.neurons),
        tiles_(population, uniform, taus),
        lanes_(tiles_.padded()),
        v_(lanes_),
        j_(lanes_),
        u_(lanes_, 0.0),
        threshold_(lanes_),
        base_threshold_(lanes_),
        open_boxes_(lanes_, std::int32_t(0)),
        refractory_(lanes_, std::uint8_t(0)),
        held_v_(lanes_, 0.0) {
    for (Index n = 0; n < lanes_; ++n) {
      const auto& tile = tiles_.tile(n / kLanes);
      v_[n] = tile.v_start[n % kLanes];
      j_[n] = tile.j_start[n % kLanes];
      base_threshold_[n] = settings.fires ? tile.fires_at[n % kLanes] : kNever;
      threshold_[n] = base_threshold_[n];
    }
    if (settings.width > 0 || settings.drive == Drive::kCurrent) return;
    // If arrivals change v directly, a neuron that starts at its threshold is checked together with
    // the arrivals at time 0: hold it until then.
    for (Index n = 0; n < neurons; ++n) {
      if (time_to_threshold(n) > 0) continue;
      refractory_[n] = 1;
      held_v_[n] = v_[n] + box_level(n);
      base_threshold_[n] = threshold_[n] = kNever;
      initially_above_.push_back(n);
    }
  }

  /// Return the time of the next spike before `end`, or inf. `next_neurons()` are the neurons that
  /// fire then.
  double next_spike(double end) {
    if (!settings.fires || end <= clear_until_) return kNever;
    if (!crossing_known_) search_crossing(end);
    return crossing_ < end ? crossing_ : kNever;
  }

  const std::vector<Index>& next_neurons() const { return next_neurons_; }
  /// Neurons that are above their threshold at time 0.
  const std::vector<Index>& initially_above() const { return initially_above_; }

  /// Advance all neurons to a time.
  void advance_to(double time) {
    const double duration = time - now_;
    now_ = std::max(now_, time);
    invalidate_crossing();
    if (!(duration > 0)) return;
    const auto time_step = step_over(duration);
    for (Index q = 0; q < tiles_.vectors(); ++q) {
      V j_end;
      store(v_, q, flow_vector(time_step, q, j_end));
      store(j_, q, j_end);
    }
  }

  void deliver(const Projection& projection, const ScheduledEvent& event) {
    const FanOut& fan_out = projection.fan_outs[event.fan_out];
    const double* weight = projection.weight.data() + fan_out.first;
    if (settings.width == 0 && fan_out.targets_all) {
      double* voltage_or_current = settings.drive == Drive::kCurrent ? j_.data() : v_.data();
      for (Index n = 0; n < fan_out.count; ++n) voltage_or_current[n] += event.value * weight[n];
      return;
    }
    const std::int32_t* targets = projection.neuron.data() + fan_out.first;
    for (Index n = 0; n < fan_out.count; ++n) {
      const Index target_neuron = fan_out.targets_all ? n : targets[n];
      if (settings.width > 0)
        switch_box(target_neuron, event.value * weight[n], event.closes);
      else
        (settings.drive == Drive::kCurrent ? j_ : v_)[target_neuron] += event.value * weight[n];
    }
  }

  /// Let a neuron fire now; return whether its refractory period begins.
  bool fire(Index neuron) {
    const bool is_held = settings.refractory > 0 && !settings.once;
    double reset = tiles_.v_reset(neuron);
    if (settings.subtract && !is_held) reset += std::max(v_[neuron] - threshold_[neuron], 0.0);
    v_[neuron] = reset - box_level(neuron);
    if (is_held || settings.once) base_threshold_[neuron] = threshold_[neuron] = kNever;
    refractory_[neuron] = is_held;
    held_v_[neuron] = reset;
    return is_held;
  }

  /// End a neuron's refractory period now; v starts at the value at which it was held.
  void release(Index neuron) {
    refractory_[neuron] = 0;
    base_threshold_[neuron] = tiles_.threshold(neuron);
    threshold_[neuron] = base_threshold_[neuron] - box_level(neuron);
    v_[neuron] = held_v_[neuron] - box_level(neuron);
  }

  /// Compute v, measured from rest, at a time not before the current one and not after the next
  /// event.
  void voltage(double time, double* potentials) const {
    const auto time_step = step_over(std::max(time - now_, 0.0));
    for (Index q = 0; q < tiles_.vectors(); ++q) {
      V j_end;
      const V v = flow_vector(time_step, q, j_end);
      for (Index n = q * kLanes; n < std::min(neurons, (q + 1) * kLanes); ++n)
        potentials[n] = refractory_[n] ? held_v_[n] : v[n % kLanes] + box_level(n);
    }
  }

  /// Number of values per neuron in `StreamState`; each population has one more.
  static constexpr Index kNumbersPerNeuron = 6;

  void save(StreamState& state) const {
    state.numbers.push_back(now_);
    for (const Array<double>* array : {&v_, &j_, &u_, &threshold_, &base_threshold_, &held_v_})
      state.numbers.insert(state.numbers.end(), array->data(), array->data() + neurons);
    state.open_boxes.insert(state.open_boxes.end(), open_boxes_.data(),
                            open_boxes_.data() + neurons);
    state.refractory.insert(state.refractory.end(), refractory_.data(),
                            refractory_.data() + neurons);
  }

  /// Load a saved state. The positions are the start of this population's part, and are moved to
  /// its end.
  void load(const StreamState& state, Index& number_position, Index& flag_position) {
    now_ = state.numbers[number_position++];
    for (Array<double>* array : {&v_, &j_, &u_, &threshold_, &base_threshold_, &held_v_}) {
      std::copy_n(state.numbers.data() + number_position, neurons, array->data());
      number_position += neurons;
    }
    std::copy_n(state.open_boxes.data() + flag_position, neurons, open_boxes_.data());
    std::copy_n(state.refractory.data() + flag_position, neurons, refractory_.data());
    flag_position += neurons;
    invalidate_crossing();
  }

  Settings settings;
  Index neurons;

 private:
  using TimeStep = typename PopulationTiles<double>::TimeStep;

  static V load(const Array<double>& array, Index q) {
    V value;
    std::memcpy(&value, array.data() + q * kLanes, sizeof(value));
    return value;
  }
  static void store(Array<double>& array, Index q, V value) {
    std::memcpy(array.data() + q * kLanes, &value, sizeof(value));
  }

  double box_level(Index neuron) const { return settings.drive == Drive::kRate ? 0.0 : u_[neuron]; }

  /// Open or close a box. Without open boxes u is exactly 0.
  void switch_box(Index neuron, double height, bool closes) {
    open_boxes_[neuron] += closes ? -1 : 1;
    const double u = open_boxes_[neuron] == 0 ? 0.0 : u_[neuron] + height;
    const double change = u - u_[neuron];
    u_[neuron] = u;
    if (settings.drive == Drive::kRate) return;
    v_[neuron] -= change;
    if (settings.drive == Drive::kCurrent) j_[neuron] -= change;
    threshold_[neuron] = base_threshold_[neuron] - u;
  }

  TimeStep step_over(double duration) const {
    if (settings.drive == Drive::kRate) return TimeStep{duration, {}, {}};
    return tiles_.time_step(duration, false);
  }

  /// Return v and j of a vector of neurons after a time step.
  V flow_vector(const TimeStep& time_step, Index q, V& j_end) const {
    const V v = load(v_, q), j = load(j_, q);
    j_end = j;
    if (settings.drive == Drive::kRate) return v + (j + load(u_, q)) * time_step.t;
    V em, es, k, bound;
    tiles_.coefficients(time_step, q, em, es, k, bound);
    if (settings.drive == Drive::kLeak) return v * em;
    j_end = j * es;
    return v * em + j * k;
  }

  void invalidate_crossing() {
    crossing_known_ = false;
    clear_until_ = -kNever;
  }

  static V maximum(V a, V b) { return a > b ? a : b; }
  static V magnitude(V x) { return maximum(x, -x); }

  /// Find the next crossing before `end`. Candidates are selected by an upper bound of v, which
  /// assumes that j does not decay.
  void search_crossing(double end) {
    next_neurons_.clear();
    crossing_ = kNever;
    const auto time_step = step_over(std::max(end - now_, 0.0));
    const V zero = {}, max_finite = zero + std::numeric_limits<double>::max();
    for (Index q = 0; q < tiles_.vectors(); ++q) {
      V em, es, k, bound, j_end, v = load(v_, q), j = load(j_, q), highest;
      if (settings.drive == Drive::kCurrent) {
        tiles_.coefficients(time_step, q, em, es, k, bound);
        highest = maximum(v, v * em + maximum(j, zero) * bound);
      } else {
        highest = maximum(v, flow_vector(time_step, q, j_end));
      }
      // The margin exceeds the rounding error: a search to a later end must not find a crossing
      // that this one missed.
      const V threshold = load(threshold_, q);
      const V scale =
          magnitude(v) + magnitude(j) + (threshold < max_finite ? magnitude(threshold) : zero);
      for (unsigned may_cross = at_least(highest + kMargin * scale, threshold); may_cross;
           may_cross &= may_cross - 1)
        add_crossing(q * kLanes + __builtin_ctz(may_cross));
    }
    crossing_known_ = crossing_ < end;
    if (!crossing_known_) clear_until_ = end;
  }

  void add_crossing(Index neuron) {
    if (!(threshold_[neuron] < kNever)) return;
    const double time = now_ + time_to_threshold(neuron);
    if (time > crossing_ || !(time < kNever)) return;
    if (time < crossing_) next_neurons_.clear();
    crossing_ = time;
    next_neurons_.push_back(neuron);
  }

  /// Return the time until a neuron reaches its threshold without further arrivals; inf if it never
  /// does.
  double time_to_threshold(Index neuron) const {
    const double v = v_[neuron], threshold = threshold_[neuron];
    const TimeConstants& taus = tiles_.taus(neuron);
    if (settings.drive == Drive::kCurrent) return crossing_ahead(taus, v, j_[neuron], threshold);
    if (v > threshold || (v == threshold && settings.at_equality)) return 0;
    if (settings.drive == Drive::kLeak)
      return threshold < 0 ? taus.mem * std::log1p((v - threshold) / threshold) : kNever;
    const double rate = j_[neuron] + u_[neuron];
    return rate > 0 ? (threshold - v) / rate : kNever;
  }

  static constexpr double kMargin = 1e-12;
  PopulationTiles<double> tiles_;
  Index lanes_;
  Array<double> v_, j_, u_;
  Array<double> threshold_, base_threshold_;  // threshold of `v_`; threshold without boxes
  Array<std::int32_t> open_boxes_;            // number of open boxes
  Array<std::uint8_t> refractory_;
  Array<double> held_v_;  // v during the refractory period
  double now_ = 0;
  // Next spike: none before `clear_until_` or, if crossing_known_, at `crossing_`.
  bool crossing_known_ = false;
  double clear_until_ = -kNever;
  double crossing_ = kNever;
  std::vector<Index> next_neurons_, initially_above_;
};

class Stream {
 public:
  /// Add a population; `parameters`: (fields, neurons).
  void add(Index neurons, const double* parameters, const StreamPopulation::Settings& settings) {
    const Population<double> population{1, 0, 0, neurons, 1, nullptr, parameters, 0};
    const double *tau_mem = parameters + kTauMem * neurons,
                 *tau_syn = parameters + kTauSyn * neurons;
    bool uniform = true;
    for (Index n = 1; n < neurons; ++n)
      uniform = uniform && tau_mem[n] == tau_mem[0] && tau_syn[n] == tau_syn[0];
    const TimeConstants taus =
        neurons ? TimeConstants(tau_mem[0], tau_syn[0], 0x1p-52) : TimeConstants();
    populations_.push_back(std::make_unique<StreamPopulation>(population, uniform, taus, settings));
    const Index index = populations_.size() - 1;
    for (Index neuron : populations_.back()->initially_above())
      queue_.push({0, settings.group, 0, index, -1, 0, neuron, 0, false});
  }

  void connect(Projection&& projection) { projections_.push_back(std::move(projection)); }

  /// Begin a push; earlier ones can no longer be rolled back. `committed`: see `roll_back`.
  void begin_push(Index committed) {
    roll_back(committed);
    if (log_incomplete_ || work_ > kWorkPerCheckpoint * size_of_state()) save_checkpoint();
    push_start_ = log_.size();
    push_start_time_ = time;
    pushes_begun_ = committed + 1;
  }

  /// Roll back a push that was interrupted: it began, but the caller does not count it as
  /// completed. `committed`: number of completed pushes, counted by the caller.
  void roll_back(Index committed) {
    if (pushes_begun_ <= committed) return;
    load(checkpoint_);
    for (Index n = 0; n < push_start_; ++n)
      schedule_fan_outs(-1 - log_[n].input, log_[n].channel, log_[n].time, log_[n].value);
    log_.resize(push_start_);
    log_incomplete_ = false;
    while (!run(push_start_time_)) {
    }
    recorded_spikes.clear();
    pushes_begun_ = committed;
  }

  /// Schedule events of an input, at times not before the end of the last run. Return how many were
  /// accepted: fewer than `count` if the slice of time is over.
  template <class Channel>
  Index push(Index input, Index count, const double* time, const Channel* channel,
             const double* value) {
    SliceTimer slice_timer(slice);
    for (Index n = 0; n < count; ++n) {
      const double strength = value ? value[n] : 1.0;
      schedule_fan_outs(-1 - input, channel[n], time[n], strength);
      log_event({input, Index(channel[n]), time[n], strength});
      if ((n + 1) % kEventsPerClockCheck == 0 && slice_timer.is_over()) return n + 1;
    }
    return count;
  }

  /// Simulate everything before `end` and append spikes of recorded populations to
  /// `recorded_spikes`. Return false if the slice of time is over before that.
  bool run(double end) {
    SliceTimer slice_timer(slice);
    std::uint64_t work_at_check = work_;
    while (delivering_ || advance(end)) {
      if (delivering_) deliver_simultaneous();
      if (work_ - work_at_check < work_per_clock_check()) continue;
      work_at_check = work_;
      if (slice_timer.is_over()) return false;
    }
    time = end;
    return true;
  }

  StreamState save() const {
    StreamState state;
    save(state);
    return state;
  }

  /// Continue from another state of the same network; check it with `fits` first.
  void restore(const StreamState& state) {
    load(state);
    save_checkpoint();
    push_start_ = 0;
    push_start_time_ = time;
    recorded_spikes.clear();
  }

  /// Return whether a state, possibly read from a file, can be a state of this stream: all indices
  /// are valid, and no event is scheduled before its time.
  bool fits(const StreamState& state) const {
    Index neurons = 0;
    for (const auto& population : populations_) neurons += population->neurons;
    const Index numbers = StreamPopulation::kNumbersPerNeuron * neurons + populations();
    if (Index(state.numbers.size()) != numbers || Index(state.open_boxes.size()) != neurons ||
        Index(state.refractory.size()) != neurons || !(state.time >= 0 && state.time < kNever) ||
        state.round < 0 || state.round > kMaxRounds || std::isnan(state.round_time))
      return false;
    for (double number : state.numbers)
      if (std::isnan(number)) return false;
    for (std::int32_t count : state.open_boxes)
      if (count < 0) return false;
    for (const ScheduledEvent& event : state.queue)
      if (!fits(event) || event.time < state.time) return false;
    return true;
  }

  /// Move out `recorded_spikes`, ordered by population, and their number for each population.
  void take_spikes(double* time, std::int32_t* neuron, std::int64_t* counts) {
    std::fill_n(counts, populations_.size(), 0);
    for (const RecordedSpike& spike : recorded_spikes) ++counts[spike.population];
    next_place_.assign(populations_.size(), 0);
    for (std::size_t population = 1; population < next_place_.size(); ++population)
      next_place_[population] = next_place_[population - 1] + counts[population - 1];
    for (const RecordedSpike& spike : recorded_spikes) {
      const Index place = next_place_[spike.population]++;
      time[place] = spike.time;
      neuron[place] = spike.neuron;
    }
    recorded_spikes.clear();
  }

  void voltage(Index population, double time, double* potentials) const {
    populations_[population]->voltage(time, potentials);
  }

  Index populations() const { return populations_.size(); }
  Index queued_events() const { return queue_.size(); }
  std::vector<RecordedSpike> recorded_spikes;
  std::string problem;
  double time = 0;  // time to which the stream was run
  /// Length of a slice: how long a call works before signals are checked.
  std::chrono::duration<double> slice{0.02};

 private:
  /// Timer of a slice. It starts when it is first read, so that small pushes never read the clock.
  class SliceTimer {
   public:
    explicit SliceTimer(std::chrono::duration<double> length) : length_(length) {}
    bool is_over() {
      const auto now = std::chrono::steady_clock::now();
      if (!started_) begin_ = now;
      started_ = true;
      return now - begin_ >= length_;
    }

   private:
    std::chrono::duration<double> length_;
    std::chrono::steady_clock::time_point begin_;
    bool started_ = false;
  };
  struct Event {
    Index input, channel;
    double time, value;
  };
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  static constexpr Index kMaxSimultaneous = 1000000, kMaxRounds = Index(1) << 62;
  /// The clock is read after this much work (about 0.1 ms), or this many events.
  static constexpr std::uint64_t kWorkPerClockCheck = 1 << 16;
  static constexpr Index kEventsPerClockCheck = 1024;
  /// A checkpoint costs about two units of work per neuron, so checkpoints add less than 1 %.
  static constexpr std::uint64_t kWorkPerCheckpoint = 256;
  /// The log may contain this many events more than the queue.
  static constexpr Index kMaxExtraEvents = 4096;

  std::uint64_t work_per_clock_check() const { return slice.count() > 0 ? kWorkPerClockCheck : 1; }

  /// Simulate the next spike, or begin the next delivery, which `deliver_simultaneous` completes.
  /// Return false if there is no event before `end`.
  bool advance(double end) {
    const double next_delivery = queue_.empty() ? end : std::min(queue_.top().time, end);
    // A crossing at the time of an arrival acts before it; events at `end` wait for the next run.
    double next_time = next_delivery < end ? std::nextafter(next_delivery, end) : end;
    StreamPopulation* firing = nullptr;
    std::int32_t firing_index = 0;
    for (std::size_t index = 0; index < populations_.size(); ++index) {
      const double spike_time = populations_[index]->next_spike(next_time);
      if (spike_time < next_time) {
        next_time = spike_time;
        firing = populations_[index].get();
        firing_index = std::int32_t(index);
      }
    }
    if (!firing && !(next_delivery < end)) return false;
    if (!firing) next_time = next_delivery;
    simultaneous_events_ = next_time > last_event_time_ ? 0 : simultaneous_events_ + 1;
    last_event_time_ = next_time;
    if (simultaneous_events_ > kMaxSimultaneous)
      throw std::runtime_error("more than " + std::to_string(kMaxSimultaneous) +
                               " spikes and arrivals at one time, " + std::to_string(next_time) +
                               " s");
    if (firing)
      fire(*firing, firing_index, next_time);
    else
      begin_delivery();
    return true;
  }

  Index size_of_state() const {
    Index size = queue_.size() + 1;
    for (const auto& population : populations_) size += population->neurons;
    return size;
  }

  void save(StreamState& state) const {
    state.time = time;
    state.round = round_;
    state.round_time = round_time_;
    state.numbers.clear();
    state.open_boxes.clear();
    state.refractory.clear();
    for (const auto& population : populations_) population->save(state);
    state.queue = queue_.entries();
  }

  void load(const StreamState& state) {
    time = state.time;
    round_ = state.round;
    round_time_ = state.round_time;
    Index number_position = 0, flag_position = 0;
    for (const auto& population : populations_)
      population->load(state, number_position, flag_position);
    queue_.assign(state.queue);
    delivering_ = false;
    simultaneous_events_ = 0;
    last_event_time_ = -kNever;
  }

  bool fits(const ScheduledEvent& event) const {
    if (!(event.time < kNever) || std::isnan(event.value) || event.round < 0 ||
        event.round > kMaxRounds || event.target < 0 || event.target >= populations() ||
        event.group != populations_[event.target]->settings.group)
      return false;
    if (event.projection < 0)
      return event.neuron >= 0 && event.neuron < populations_[event.target]->neurons;
    if (event.projection >= Index(projections_.size())) return false;
    const Projection& projection = projections_[event.projection];
    return projection.target == event.target && event.fan_out >= 0 &&
           event.fan_out < Index(projection.fan_outs.size());
  }

  void save_checkpoint() {
    save(checkpoint_);
    log_.clear();
    log_incomplete_ = false;
    work_ = 0;
  }

  void log_event(const Event& event) {
    if (log_incomplete_) return;
    if (Index(log_.size()) < kMaxExtraEvents + Index(queue_.size()))
      log_.push_back(event);
    else
      log_incomplete_ = true;
  }

  void fire(StreamPopulation& population, std::int32_t index, double time) {
    std::vector<Index> firing = population.next_neurons();
    std::sort(firing.begin(), firing.end());
    population.advance_to(time);
    work_ += population.neurons;
    if (time > round_time_) round_ = 0;
    round_time_ = time;
    for (Index neuron : firing) {
      if (population.fire(neuron)) {
        const double end = time + population.settings.refractory;
        queue_.push({end, population.settings.group, 0, index, -1, 0, neuron, 0, false});
      }
      if (population.settings.recorded)
        recorded_spikes.push_back({time, index, std::int32_t(neuron)});
      schedule_fan_outs(index, neuron, time, 1.0);
    }
  }

  /// Advance the target population to the next event; `deliver_simultaneous` delivers it.
  void begin_delivery() {
    delivery_ = queue_.top();
    delivering_ = true;
    StreamPopulation& population = *populations_[delivery_.target];
    population.advance_to(delivery_.time);
    work_ += population.neurons;
    round_ = delivery_.round;
    round_time_ = delivery_.time;
  }

  /// Deliver all simultaneous events of a population, or a part of them if there is much work.
  void deliver_simultaneous() {
    StreamPopulation& population = *populations_[delivery_.target];
    const std::uint64_t work_limit = work_ + work_per_clock_check();
    while (!queue_.empty() && queue_.top().acts_with(delivery_)) {
      if (work_ >= work_limit) return;
      const ScheduledEvent event = queue_.top();
      queue_.pop();
      ++work_;
      if (event.projection < 0) {
        population.release(event.neuron);
      } else {
        const Projection& projection = projections_[event.projection];
        work_ += projection.fan_outs[event.fan_out].count;
        population.deliver(projection, event);
      }
    }
    delivering_ = false;
  }

  /// Schedule the arrivals that a spike or an input event of a source causes.
  void schedule_fan_outs(Index source, Index channel, double time, double strength) {
    for (Index projection_index = 0; projection_index < Index(projections_.size());
         ++projection_index) {
      const Projection& projection = projections_[projection_index];
      if (projection.source != source) continue;
      const StreamPopulation::Settings& target = populations_[projection.target]->settings;
      for (Index fan_out_index = projection.first_fan_out[channel];
           fan_out_index < projection.first_fan_out[channel + 1]; ++fan_out_index) {
        const double arrival_time = time + projection.fan_outs[fan_out_index].delay;
        Index round = 0;
        if (source >= 0 && populations_[source]->settings.group == target.group &&
            arrival_time == time)
          round = round_ + 1;
        queue_.push({arrival_time, target.group, round, projection.target, projection_index,
                     fan_out_index, 0, strength, false});
        if (target.width > 0)
          queue_.push({arrival_time + target.width, target.group, 0, projection.target,
                       projection_index, fan_out_index, 0, -strength, true});
      }
    }
  }

  std::vector<std::unique_ptr<StreamPopulation>> populations_;
  std::vector<Projection> projections_;
  std::vector<Index>
      next_place_;   // position of the next spike of each population, in `take_spikes`
  Index round_ = 0;  // round of simultaneous events within a group
  double round_time_ = -1;
  ScheduleQueue queue_;
  ScheduledEvent delivery_{};  // first of the simultaneous events, while `delivering_`
  bool delivering_ = false;
  Index simultaneous_events_ = 0;  // events at the time `last_event_time_`
  double last_event_time_ = -kNever;
  // For rolling back: a checkpoint, the events since then, and where among them the push began.
  StreamState checkpoint_;
  std::vector<Event> log_;
  bool log_incomplete_ = true;               // if so, the next push makes a checkpoint
  std::uint64_t work_ = 0;                   // neurons and synapses processed since the checkpoint
  Index push_start_ = 0, pushes_begun_ = 0;  // logged events before the push; pushes begun
  double push_start_time_ = 0;
};

}  // namespace native
