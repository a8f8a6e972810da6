// One sample whose events come in pieces: populations of neurons and readouts in any wiring, with
// delays, loops among it. Numbers are double, whatever the network's are.
//
// Each population stands at the time of what last arrived there or of its own last spike. When a
// neuron crosses its threshold follows from that state alone, and not from how far the simulation
// is asked to go, so that pieces of any size give the same bits. What arrives waits in a queue until
// all that arrives at that time is known, and then acts together: docs/event_engine.md.
//
// A push is all or nothing. It runs in slices, between which Python looks for signals, and can be rolled
// back until the next one begins: to a copy of the state that was made some pushes ago, from which the
// events since then are simulated again. That gives the same bits, as pieces of any size do, and costs
// less than a copy for each push.

#pragma once

#include <chrono>
#include <cmath>
#include <queue>
#include <stdexcept>
#include <string>
#include <tuple>

#include "group.h"

namespace native {

/// What a spike of one channel does to a population, after a delay: adds `weight` to the j of
/// `target`s; of all neurons in turn where it has none.
struct Bundle {
  double delay;
  Index first, count;  // of the weights
  bool every;
};

/// The way from a source to a population.
struct Wiring {
  Index source, target;         // a population, or -1 - n for input n
  std::vector<Index> of_channel;  // channel c has the bundles from of_channel[c] on
  std::vector<Bundle> bundles;
  std::vector<double> weight;
  std::vector<std::int32_t> neuron;
};

/// Something that happens at a population: a bundle arrives, or (wiring < 0) a neuron's refractory
/// time ends. Of one time groups come in their order; in a group what its spikes send back arrives
/// in a later round.
struct Due {
  double time;
  Index group, round, target, wiring, bundle, neuron;
  double value;
  bool closes;  // the end of a box

  auto key() const {
    return std::make_tuple(time, group, round, target, wiring, bundle, neuron, closes, value);
  }
  bool operator>(const Due& other) const { return key() > other.key(); }
  bool with(const Due& other) const {
    return time == other.time && group == other.group && round == other.round &&
           target == other.target;
  }
};

struct Fired {
  double time;
  std::int32_t population, neuron;
};

/// What changes in a stream; everything else follows from the network. Numbers and flags of all
/// populations follow each other, those of neurons that only fill up vectors left out.
struct StreamState {
  double time = 0;        // to which it was run
  double round_time = -1;
  Index round = 0;
  std::vector<double> numbers;       // of each population: now, then v, j, u, threshold, ...
  std::vector<std::int32_t> open;    // boxes
  std::vector<std::uint8_t> held;    // in a refractory time
  std::vector<Due> queue;            // a heap
};

/// The heap of what is due, whose entries can be copied.
struct DueQueue : std::priority_queue<Due, std::vector<Due>, std::greater<Due>> {
  const std::vector<Due>& entries() const { return c; }
  void assign(const std::vector<Due>& entries) {
    c = entries;
    std::make_heap(c.begin(), c.end(), comp);
  }
};

/// When a neuron at (v, j) crosses its threshold if nothing else arrives, after now; inf: never.
inline double crossing_ahead(const TimeConstants& taus, double v, double j, double threshold) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  constexpr double kEps = 0x1p-52;
  if (v >= threshold) return 0;
  const bool comes_up = j * taus.syn + (taus.mem - taus.syn) * v > 0;
  if (j > v && j > 0 && comes_up && peak_reaches(taus, v, j, threshold))
    return find_crossing(taus, v, j, threshold, kNever, false, kEps).wait;
  if (!(threshold < 0)) return kNever;
  // It comes up to 0 in the end, and so to the threshold on the way.
  double end = taus.mem + taus.syn;
  for (int count = 0; count < 1100; ++count, end *= 2) {
    const Flow flow = flow_over(taus, end);
    if (v * flow.em + j * flow.k >= threshold)
      return find_crossing_newton(taus, v, j, threshold, end, true, kEps);
  }
  return kNever;
}

/// What drives V: a current that decays, the voltage itself (V' = -V / tau), or a rate (V' = j).
enum class Drive { kCurrent, kLeak, kRate };

/// A population whose V is counted from where it flows to: its rest and, under box spikes, u, what
/// the open boxes hold. A rate knows no such place: there u adds to j.
class StreamPopulation {
  using V = DoubleVector;
  static constexpr int kLanes = kWidth<double>;
  static constexpr double kNever = std::numeric_limits<double>::infinity();

 public:
  struct Kind {
    Drive drive;
    bool fires, once, subtract, recorded;
    bool at_equality;   // an arrival that moves V onto the threshold is enough
    double width;       // of a box, seconds; 0: spikes are deltas
    double refractory;  // seconds
    Index group;  // of populations that feed back into each other
  };

  StreamPopulation(const Population<double>& population, bool uniform, const TimeConstants& taus, const Kind& kind)
      : kind(kind),
        neurons(population.neurons),
        tiles_(population, uniform, taus),
        lanes_(tiles_.padded()),
        v_(lanes_),
        j_(lanes_),
        u_(lanes_, 0.0),
        threshold_(lanes_),
        resting_(lanes_),
        open_(lanes_, std::int32_t(0)),
        held_(lanes_, std::uint8_t(0)),
        kept_(lanes_, 0.0) {
    for (Index n = 0; n < lanes_; ++n) {
      const auto& part = tiles_.tile(n / kLanes);
      v_[n] = part.v_start[n % kLanes];
      j_[n] = part.j_start[n % kLanes];
      resting_[n] = kind.fires ? part.fires_at[n % kLanes] : kNever;
      threshold_[n] = resting_[n];
    }
    if (kind.width > 0 || kind.drive == Drive::kCurrent) return;
    // Where arrivals move V it is looked at with those of time 0, however it begins.
    for (Index n = 0; n < neurons; ++n) {
      if (wait_of(n) > 0) continue;
      held_[n] = 1;
      kept_[n] = v_[n] + shift(n);
      resting_[n] = threshold_[n] = kNever;
      waiting_.push_back(n);
    }
  }

  /// When it fires next, before `end`; inf: not before that. `first()` are the neurons that do.
  double next(double end) {
    if (!kind.fires || end <= clear_until_) return kNever;
    if (!known_) look(end);
    return crossing_ < end ? crossing_ : kNever;
  }

  const std::vector<Index>& first() const { return first_; }
  /// Those that are above their threshold at time 0.
  const std::vector<Index>& waiting() const { return waiting_; }

  /// Everyone to a time.
  void flow_to(double time) {
    const double wait = time - now_;
    now_ = std::max(now_, time);
    forget();
    if (!(wait > 0)) return;
    const auto over = coefficients_over(wait);
    for (Index q = 0; q < tiles_.vectors(); ++q) {
      V j_end;
      store(v_, q, flowed(over, q, j_end));
      store(j_, q, j_end);
    }
  }

  void arrive(const Wiring& wiring, const Due& due) {
    const Bundle& bundle = wiring.bundles[due.bundle];
    const double* weight = wiring.weight.data() + bundle.first;
    if (kind.width == 0 && bundle.every) {
      double* to = kind.drive == Drive::kCurrent ? j_.data() : v_.data();
      for (Index n = 0; n < bundle.count; ++n) to[n] += due.value * weight[n];
      return;
    }
    const std::int32_t* target = wiring.neuron.data() + bundle.first;
    for (Index n = 0; n < bundle.count; ++n) {
      const Index to = bundle.every ? n : target[n];
      if (kind.width > 0)
        transpose(to, due.value * weight[n], due.closes);
      else
        (kind.drive == Drive::kCurrent ? j_ : v_)[to] += due.value * weight[n];
    }
  }

  /// A spike now. Whether a refractory time begins.
  bool fire(Index neuron) {
    const bool held = kind.refractory > 0 && !kind.once;
    double reset = tiles_.v_reset(neuron);
    if (kind.subtract && !held) reset += std::max(v_[neuron] - threshold_[neuron], 0.0);
    v_[neuron] = reset - shift(neuron);
    if (held || kind.once) resting_[neuron] = threshold_[neuron] = kNever;
    held_[neuron] = held;
    kept_[neuron] = reset;
    return held;
  }

  /// A refractory time ends now: V begins where it was held.
  void release(Index neuron) {
    held_[neuron] = 0;
    resting_[neuron] = tiles_.threshold(neuron);
    threshold_[neuron] = resting_[neuron] - shift(neuron);
    v_[neuron] = kept_[neuron] - shift(neuron);
  }

  /// v, counted from rest, at a time that is not before now, and that nothing has to happen before.
  void voltage(double time, double* out) const {
    const auto over = coefficients_over(std::max(time - now_, 0.0));
    for (Index q = 0; q < tiles_.vectors(); ++q) {
      V j_end;
      const V v = flowed(over, q, j_end);
      for (Index n = q * kLanes; n < std::min(neurons, (q + 1) * kLanes); ++n)
        out[n] = held_[n] ? kept_[n] : v[n % kLanes] + shift(n);
    }
  }

  /// Numbers for each neuron in `StreamState`, and one more for each population.
  static constexpr Index kNumbers = 6;

  void save(StreamState& state) const {
    state.numbers.push_back(now_);
    for (const Array<double>* array : {&v_, &j_, &u_, &threshold_, &resting_, &kept_})
      state.numbers.insert(state.numbers.end(), array->data(), array->data() + neurons);
    state.open.insert(state.open.end(), open_.data(), open_.data() + neurons);
    state.held.insert(state.held.end(), held_.data(), held_.data() + neurons);
  }

  /// The inverse. `number` and `flag` are where this population's part begins, and move to its end.
  void load(const StreamState& state, Index& number, Index& flag) {
    now_ = state.numbers[number++];
    for (Array<double>* array : {&v_, &j_, &u_, &threshold_, &resting_, &kept_}) {
      std::copy_n(state.numbers.data() + number, neurons, array->data());
      number += neurons;
    }
    std::copy_n(state.open.data() + flag, neurons, open_.data());
    std::copy_n(state.held.data() + flag, neurons, held_.data());
    flag += neurons;
    forget();
  }

  Kind kind;
  Index neurons;

 private:
  using TimeStep = typename PopulationTiles<double>::TimeStep;

  static V load(const Array<double>& from, Index q) {
    V value;
    std::memcpy(&value, from.data() + q * kLanes, sizeof(value));
    return value;
  }
  static void store(Array<double>& to, Index q, V value) {
    std::memcpy(to.data() + q * kLanes, &value, sizeof(value));
  }

  double shift(Index neuron) const { return kind.drive == Drive::kRate ? 0.0 : u_[neuron]; }

  /// A box opens or closes. Where none is open u is exactly 0.
  void transpose(Index neuron, double height, bool closes) {
    open_[neuron] += closes ? -1 : 1;
    const double u = open_[neuron] == 0 ? 0.0 : u_[neuron] + height;
    const double more = u - u_[neuron];
    u_[neuron] = u;
    if (kind.drive == Drive::kRate) return;
    v_[neuron] -= more;
    if (kind.drive == Drive::kCurrent) j_[neuron] -= more;
    threshold_[neuron] = resting_[neuron] - u;
  }

  TimeStep coefficients_over(double wait) const {
    if (kind.drive == Drive::kRate) return TimeStep{wait, {}, {}};
    return tiles_.time_step(wait, false);
  }

  /// v and j after a wait.
  V flowed(const TimeStep& over, Index q, V& j_end) const {
    const V v = load(v_, q), j = load(j_, q);
    j_end = j;
    if (kind.drive == Drive::kRate) return v + (j + load(u_, q)) * over.t;
    V em, es, k, bound;
    tiles_.coefficients(over, q, em, es, k, bound);
    if (kind.drive == Drive::kLeak) return v * em;
    j_end = j * es;
    return v * em + j * k;
  }

  void forget() {
    known_ = false;
    clear_until_ = -kNever;
  }

  static V maximum(V a, V b) { return a > b ? a : b; }
  static V magnitude(V x) { return maximum(x, -x); }

  /// Who crosses next if someone may before `end`: a bound says who, as if j did not fall.
  void look(double end) {
    first_.clear();
    crossing_ = kNever;
    const auto over = coefficients_over(std::max(end - now_, 0.0));
    const V zero = {}, most = zero + std::numeric_limits<double>::max();
    for (Index q = 0; q < tiles_.vectors(); ++q) {
      V em, es, k, bound, j_end, v = load(v_, q), j = load(j_, q), highest;
      if (kind.drive == Drive::kCurrent) {
        tiles_.coefficients(over, q, em, es, k, bound);
        highest = maximum(v, v * em + maximum(j, zero) * bound);
      } else {
        highest = maximum(v, flowed(over, q, j_end));
      }
      // By more than what rounding does, so that a later end cannot find what this one missed.
      const V threshold = load(threshold_, q);
      const V size = magnitude(v) + magnitude(j) + (threshold < most ? magnitude(threshold) : zero);
      for (unsigned hit = at_least(highest + kMargin * size, threshold); hit; hit &= hit - 1)
        consider(q * kLanes + __builtin_ctz(hit));
    }
    known_ = crossing_ < end;
    if (!known_) clear_until_ = end;
  }

  void consider(Index neuron) {
    if (!(threshold_[neuron] < kNever)) return;
    const double time = now_ + wait_of(neuron);
    if (time > crossing_ || !(time < kNever)) return;
    if (time < crossing_) first_.clear();
    crossing_ = time;
    first_.push_back(neuron);
  }

  /// How long it takes to the threshold if nothing else arrives; inf: it never comes there.
  double wait_of(Index neuron) const {
    const double v = v_[neuron], threshold = threshold_[neuron];
    const TimeConstants& taus = tiles_.taus(neuron);
    if (kind.drive == Drive::kCurrent) return crossing_ahead(taus, v, j_[neuron], threshold);
    if (v > threshold || (v == threshold && kind.at_equality)) return 0;
    if (kind.drive == Drive::kLeak)
      return threshold < 0 ? taus.mem * std::log1p((v - threshold) / threshold) : kNever;
    const double rate = j_[neuron] + u_[neuron];
    return rate > 0 ? (threshold - v) / rate : kNever;
  }

  static constexpr double kMargin = 1e-12;
  PopulationTiles<double> tiles_;
  Index lanes_;
  Array<double> v_, j_, u_;
  Array<double> threshold_, resting_;  // counted from rest and u, and from rest alone
  Array<std::int32_t> open_;           // boxes
  Array<std::uint8_t> held_;
  Array<double> kept_;  // V while it is held
  double now_ = 0;
  // What is known of the next spike: none before `clear_until_`, or (known) the time of it.
  bool known_ = false;
  double clear_until_ = -kNever;
  double crossing_ = kNever;
  std::vector<Index> first_, waiting_;
};

class Stream {
 public:
  /// Adds a population; `lanes` (fields, neurons).
  void add(Index neurons, const double* lanes, const StreamPopulation::Kind& kind) {
    const Population<double> population{1, 0, 0, neurons, 1, nullptr, lanes, 0};
    const double *mem = lanes + kTauMem * neurons, *syn = lanes + kTauSyn * neurons;
    bool uniform = true;
    for (Index n = 1; n < neurons; ++n) uniform = uniform && mem[n] == mem[0] && syn[n] == syn[0];
    const TimeConstants taus = neurons ? TimeConstants(mem[0], syn[0], 0x1p-52) : TimeConstants();
    populations_.push_back(std::make_unique<StreamPopulation>(population, uniform, taus, kind));
    const Index number = populations_.size() - 1;
    for (Index neuron : populations_.back()->waiting())
      queue_.push({0, kind.group, 0, number, -1, 0, neuron, 0, false});
  }

  void connect(Wiring&& wiring) { wirings_.push_back(std::move(wiring)); }

  /// Begins a push, after which an earlier one cannot be rolled back any more. `committed`: as of
  /// `settle`.
  void begin(Index committed) {
    settle(committed);
    if (log_is_short_of_events_ || work_ > kWorkPerCopy * size_of_state()) copy_state();
    mark_ = log_.size();
    mark_time_ = time;
    begun_ = committed + 1;
  }

  /// Rolls back a push that has begun, and of which the caller does not know that it has ended: one
  /// that was interrupted. `committed`: how many pushes have ended, as the caller knows.
  void settle(Index committed) {
    if (begun_ <= committed) return;
    load(copy_);
    for (Index n = 0; n < mark_; ++n)
      send(-1 - log_[n].input, log_[n].channel, log_[n].time, log_[n].value);
    log_.resize(mark_);
    log_is_short_of_events_ = false;
    while (!run(mark_time_)) {
    }
    fired.clear();
    begun_ = committed;
  }

  /// Events of an input; times not before those that `run` has been to. How many were taken, which are
  /// fewer than `count` where that takes long.
  template <class Channel>
  Index push(Index input, Index count, const double* time, const Channel* channel,
             const double* value) {
    SliceOfTime slice_of_time(slice);
    for (Index n = 0; n < count; ++n) {
      const double size = value ? value[n] : 1.0;
      send(-1 - input, channel[n], time[n], size);
      log({input, Index(channel[n]), time[n], size});
      if ((n + 1) % kEventsPerLook == 0 && slice_of_time.is_over()) return n + 1;
    }
    return count;
  }

  /// Everything before `end`; spikes of recorded populations are added to `fired`. False: there is more
  /// to do, and the slice of time is over.
  bool run(double end) {
    SliceOfTime slice_of_time(slice);
    std::uint64_t looked = work_;
    while (acts_ || advance(end)) {
      if (acts_) act();
      if (work_ - looked < work_per_look()) continue;
      looked = work_;
      if (slice_of_time.is_over()) return false;
    }
    time = end;
    return true;
  }

  StreamState save() const {
    StreamState state;
    save(state);
    return state;
  }

  /// Goes on from another state, which is that of a stream of the same network: see `fits`.
  void restore(const StreamState& state) {
    load(state);
    copy_state();
    mark_ = 0;
    mark_time_ = time;
    fired.clear();
  }

  /// Whether a state, which may come from a file, can be that of this stream: no index leads
  /// elsewhere, and nothing is due before its time.
  bool fits(const StreamState& state) const {
    Index neurons = 0;
    for (const auto& population : populations_) neurons += population->neurons;
    const Index numbers = StreamPopulation::kNumbers * neurons + populations();
    if (Index(state.numbers.size()) != numbers || Index(state.open.size()) != neurons ||
        Index(state.held.size()) != neurons || !(state.time >= 0 && state.time < kNever) ||
        state.round < 0 || state.round > kMostRounds || std::isnan(state.round_time))
      return false;
    for (double number : state.numbers)
      if (std::isnan(number)) return false;
    for (std::int32_t count : state.open)
      if (count < 0) return false;
    for (const Due& due : state.queue)
      if (!fits(due) || due.time < state.time) return false;
    return true;
  }

  /// Hands over `fired`, those of one population after those of another, and how many each has.
  void take(double* time, std::int32_t* neuron, std::int64_t* count) {
    std::fill_n(count, populations_.size(), 0);
    for (const Fired& spike : fired) ++count[spike.population];
    place_.assign(populations_.size(), 0);
    for (std::size_t p = 1; p < place_.size(); ++p) place_[p] = place_[p - 1] + count[p - 1];
    for (const Fired& spike : fired) {
      const Index n = place_[spike.population]++;
      time[n] = spike.time;
      neuron[n] = spike.neuron;
    }
    fired.clear();
  }

  void voltage(Index population, double time, double* out) const {
    populations_[population]->voltage(time, out);
  }

  Index populations() const { return populations_.size(); }
  Index waiting() const { return queue_.size(); }
  std::vector<Fired> fired;
  std::string problem;
  double time = 0;  // to which it was run
  /// How long a call works before it looks for signals.
  std::chrono::duration<double> slice{0.02};

 private:
  /// A slice of time, which begins when the clock is looked at first: small pushes never do.
  class SliceOfTime {
   public:
    explicit SliceOfTime(std::chrono::duration<double> length) : length_(length) {}
    bool is_over() {
      const auto now = std::chrono::steady_clock::now();
      if (!begun_) begin_ = now;
      begun_ = true;
      return now - begin_ >= length_;
    }

   private:
    std::chrono::duration<double> length_;
    std::chrono::steady_clock::time_point begin_;
    bool begun_ = false;
  };
  struct Event {
    Index input, channel;
    double time, value;
  };
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  static constexpr Index kMostAtOnce = 1000000, kMostRounds = Index(1) << 62;
  /// The clock is looked at after so much work, about 0.1 ms, and so many events.
  static constexpr std::uint64_t kWorkPerLook = 1 << 16;
  static constexpr Index kEventsPerLook = 1024;
  /// A copy of the state costs about two units of work for each neuron: less than a hundredth.
  static constexpr std::uint64_t kWorkPerCopy = 256;
  /// Events that are kept beside those that are due.
  static constexpr Index kLogged = 4096;

  std::uint64_t work_per_look() const { return slice.count() > 0 ? kWorkPerLook : 1; }

  /// Simulates what comes next, but for what arrives, which is left to `act`; false: nothing comes
  /// before `end`.
  bool advance(double end) {
    const double due = queue_.empty() ? end : std::min(queue_.top().time, end);
    // Whoever crosses when something arrives does so before it; what happens at `end` waits.
    double next_time = due < end ? std::nextafter(due, end) : end;
    StreamPopulation* who = nullptr;
    std::int32_t number = 0;
    for (std::size_t p = 0; p < populations_.size(); ++p) {
      const double next = populations_[p]->next(next_time);
      if (next < next_time) {
        next_time = next;
        who = populations_[p].get();
        number = std::int32_t(p);
      }
    }
    if (!who && !(due < end)) return false;
    if (!who) next_time = due;
    at_once_ = next_time > last_ ? 0 : at_once_ + 1;
    last_ = next_time;
    if (at_once_ > kMostAtOnce)
      throw std::runtime_error("more than " + std::to_string(kMostAtOnce) +
                               " spikes and arrivals at one time, " + std::to_string(next_time) +
                               " s");
    if (who)
      fire(*who, number, next_time);
    else
      meet();
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
    state.open.clear();
    state.held.clear();
    for (const auto& population : populations_) population->save(state);
    state.queue = queue_.entries();
  }

  void load(const StreamState& state) {
    time = state.time;
    round_ = state.round;
    round_time_ = state.round_time;
    Index number = 0, flag = 0;
    for (const auto& population : populations_) population->load(state, number, flag);
    queue_.assign(state.queue);
    acts_ = false;
    at_once_ = 0;
    last_ = -kNever;
  }

  bool fits(const Due& due) const {
    if (!(due.time < kNever) || std::isnan(due.value) || due.round < 0 || due.round > kMostRounds || due.target < 0 ||
        due.target >= populations() || due.group != populations_[due.target]->kind.group)
      return false;
    if (due.wiring < 0) return due.neuron >= 0 && due.neuron < populations_[due.target]->neurons;
    if (due.wiring >= Index(wirings_.size())) return false;
    const Wiring& wiring = wirings_[due.wiring];
    return wiring.target == due.target && due.bundle >= 0 &&
           due.bundle < Index(wiring.bundles.size());
  }

  void copy_state() {
    save(copy_);
    log_.clear();
    log_is_short_of_events_ = false;
    work_ = 0;
  }

  void log(const Event& event) {
    if (log_is_short_of_events_) return;
    if (Index(log_.size()) < kLogged + Index(queue_.size()))
      log_.push_back(event);
    else
      log_is_short_of_events_ = true;
  }

  void fire(StreamPopulation& population, std::int32_t number, double time) {
    std::vector<Index> first = population.first();
    std::sort(first.begin(), first.end());
    population.flow_to(time);
    work_ += population.neurons;
    if (time > round_time_) round_ = 0;
    round_time_ = time;
    for (Index neuron : first) {
      if (population.fire(neuron)) {
        const double end = time + population.kind.refractory;
        queue_.push({end, population.kind.group, 0, number, -1, 0, neuron, 0, false});
      }
      if (population.kind.recorded) fired.push_back({time, number, std::int32_t(neuron)});
      send(number, neuron, time, 1.0);
    }
  }

  /// What is due next meets its population: `act` does the rest.
  void meet() {
    acting_ = queue_.top();
    acts_ = true;
    StreamPopulation& population = *populations_[acting_.target];
    population.flow_to(acting_.time);
    work_ += population.neurons;
    round_ = acting_.round;
    round_time_ = acting_.time;
  }

  /// All that arrives at one population together, or a part of it where that is much.
  void act() {
    StreamPopulation& population = *populations_[acting_.target];
    const std::uint64_t enough = work_ + work_per_look();
    while (!queue_.empty() && queue_.top().with(acting_)) {
      if (work_ >= enough) return;
      const Due due = queue_.top();
      queue_.pop();
      ++work_;
      if (due.wiring < 0) {
        population.release(due.neuron);
      } else {
        const Wiring& wiring = wirings_[due.wiring];
        work_ += wiring.bundles[due.bundle].count;
        population.arrive(wiring, due);
      }
    }
    acts_ = false;
  }

  /// What a spike of a source does, later.
  void send(Index source, Index channel, double time, double value) {
    for (Index w = 0; w < Index(wirings_.size()); ++w) {
      const Wiring& wiring = wirings_[w];
      if (wiring.source != source) continue;
      const StreamPopulation::Kind& to = populations_[wiring.target]->kind;
      for (Index b = wiring.of_channel[channel]; b < wiring.of_channel[channel + 1]; ++b) {
        const double at = time + wiring.bundles[b].delay;
        Index round = 0;
        if (source >= 0 && populations_[source]->kind.group == to.group && at == time)
          round = round_ + 1;
        queue_.push({at, to.group, round, wiring.target, w, b, 0, value, false});
        if (to.width > 0)
          queue_.push({at + to.width, to.group, 0, wiring.target, w, b, 0, -value, true});
      }
    }
  }

  std::vector<std::unique_ptr<StreamPopulation>> populations_;
  std::vector<Wiring> wirings_;
  std::vector<Index> place_;  // where the next spike of a population goes, in `take`
  Index round_ = 0;  // at one time, in a group
  double round_time_ = -1;
  DueQueue queue_;
  Due acting_{};       // the first of what arrives together, while `acts_`
  bool acts_ = false;
  Index at_once_ = 0;  // spikes and arrivals at the time `last_`
  double last_ = -kNever;
  // To roll a push back: a state, the events since then, and where among them the push began.
  StreamState copy_;
  std::vector<Event> log_;
  bool log_is_short_of_events_ = true;  // then there is a copy before the next push
  std::uint64_t work_ = 0;              // since the copy: neurons and weights that were looked at
  Index mark_ = 0, begun_ = 0;  // pushes that have begun
  double mark_time_ = 0;
};

}  // namespace native
