// Neurons that feed back into each other: what jaxsnn/event/forward/recurrent.py and
// adjoint/recurrent_adjoint.py do, one sample at a time.
//
// All neurons flow from one event to the next: an arrival, from outside or with a delay, or the end of
// a refractory time. A bound says which of them may cross the threshold on the way; of these the
// earliest crossing is looked for, that of the lowest bound first. It is the next event then: one
// neuron fires, and a row of weights is added to all. One pass over all neurons takes them to an event,
// adds what arrives there and looks ahead. The log holds what happened; backwards all costates go
// through it from its end to its begin.
//
// Where few feel a spike, as with sparse feedback, no pass is made for it: all others stay where they
// were when the window ahead was looked at. Who gets something, or is reset, is moved to the v and j
// that it would have had then to be where it is now; only of these, where v rises, the look is taken
// again.
//
// V of a neuron in its refractory time flows with the others, as nobody looks at it: the threshold is
// inf. At the end of that time it is set to v_reset.

#pragma once

#include "weight_rows.h"

namespace native {

/// The log of a sample: arrays (batch, steps).
template <class T>
struct Log {
  T* wait;               // since the step before, seconds
  /// of the table, which arrives there; from `Feedback::first_spike_row` on the spikes of the neurons; -1 - n
  /// where the refractory time of neuron n ends
  std::int32_t* row;
  T* slope;              // dV/dt just before, where a neuron fires; just after, where it is let go
  std::int32_t* used;    // (batch,)
  Index steps;
  std::int32_t* origin;  // the spike that sent what comes from the queue; null: nothing does
};

/// Spikes in the order in which they act: (batch, events).
template <class T>
struct Train {
  T* time;
  std::int32_t* neuron;
  std::int32_t* needed;  // (batch,) how many there are
  Index events;
};

/// All neurons of a population in vectors.
template <class T>
class Everyone {
 public:
  using V = Vector<T>;
  using One = Tile<T, 1>;
  static constexpr int kLanes = kWidth<T>;

  Everyone(const Population<T>& population, bool uniform, const TimeConstants& common) : uniform_(uniform) {
    parts_.reserve((population.neurons + kLanes - 1) / kLanes);
    for (Index first = 0; first < population.neurons; first += kLanes)
      parts_.emplace_back(population, 0, first, uniform, common);
    vectors_ = parts_.size();
    for (const One& part : parts_) positive_ = positive_ && part.positive;
    taus_ = common;
    rates_ = Array<T>(3 * padded());
    levels_ = Array<double>(2 * padded());
    for (Index n = 0; n < padded(); ++n) {
      rates_[n] = T(taus(n).leak);
      rates_[padded() + n] = T(taus(n).synaptic);
      rates_[2 * padded() + n] = T(taus(n).gain);
      levels_[n] = part(n / kLanes).fires_at[n % kLanes];
      levels_[padded() + n] = part(n / kLanes).v_reset[n % kLanes];
    }
  }

  Index vectors() const { return vectors_; }
  Index padded() const { return vectors() * kLanes; }
  bool positive() const { return positive_; }
  const One& part(Index q) const { return parts_[q]; }
  const TimeConstants& taus(Index neuron) const {
    return uniform_ ? taus_ : parts_[neuron / kLanes].taus[neuron % kLanes];
  }
  const T* leaks() const { return rates_.data(); }
  const T* synaptics() const { return rates_.data() + padded(); }
  const T* gains() const { return rates_.data() + 2 * padded(); }
  double threshold(Index n) const { return levels_[n]; }
  double v_reset(Index n) const { return levels_[padded() + n]; }
  bool starts_above(Index n) const { return parts_[n / kLanes].starts_above[n % kLanes]; }

  /// Coefficients over a time, of all or by vector.
  struct Over {
    double t;
    Step<T> step;
    StepDerivatives<T> by;
  };

  Over over(double t, bool derivatives) const {
    Over found{t, {}, {}};
    if (!uniform_) return found;
    const Exponential slow = exponential(-t * taus_.slow);
    const double fast = taus_.gap == taus_.slow ? slow.expm1 : exponential(-t * taus_.gap).expm1;
    const Flow flow = flow_from_exponentials(taus_, t, slow.value, fast);
    const double fall = taus_.mem_longer ? -slow.expm1 : -(slow.expm1 + fast + slow.expm1 * fast);
    const T bound = T(fall) * (1 + 2 * std::numeric_limits<T>::epsilon());
    found.step = {T(flow.em), T(flow.es), T(flow.k), std::max(bound, T(flow.k))};
    if (derivatives) {
      const FlowDerivatives by = flow_derivatives(taus_, t, flow);
      found.by = {T(by.em_mem), T(by.k_mem), T(by.es_syn), T(by.k_syn)};
    }
    return found;
  }

  bool uniform() const { return uniform_; }

  template <bool kUniform>
  void coefficients(const Over& over, Index q, V& em, V& es, V& k, V& bound) const {
    if constexpr (kUniform) {
      em = broadcast(over.step.em);
      es = broadcast(over.step.es);
      k = broadcast(over.step.k);
      bound = broadcast(over.step.bound);
    } else {
      parts_[q].compute_step(0, over.t, em, es, k, bound);
    }
  }

  void coefficients(const Over& over, Index q, V& em, V& es, V& k, V& bound) const {
    uniform_ ? coefficients<true>(over, q, em, es, k, bound)
             : coefficients<false>(over, q, em, es, k, bound);
  }

  template <bool kUniform>
  void derivatives(const Over& over, Index q, V& em_mem, V& k_mem, V& es_syn, V& k_syn) const {
    if constexpr (kUniform) {
      em_mem = broadcast(over.by.em_mem);
      k_mem = broadcast(over.by.k_mem);
      es_syn = broadcast(over.by.es_syn);
      k_syn = broadcast(over.by.k_syn);
    } else {
      parts_[q].compute_step_derivatives(0, over.t, em_mem, k_mem, es_syn, k_syn);
    }
  }

 private:
  std::vector<One> parts_;
  Index vectors_ = 0;
  Array<T> rates_;        // 1 / tau_mem of all, 1 / tau_syn of all, v' by j of all
  Array<double> levels_;  // thresholds of all, v_reset of all
  bool uniform_, positive_ = true;
  TimeConstants taus_;
};

// ---- gradients

/// Gradients of nothing; `times`: how many of these there are.
template <class T>
void begin_gradients(const Population<T>& population, const Gradients<T>& gradients, Index times) {
  std::fill_n(gradients.weight, population.rows * population.neurons, T(0));
  if (gradients.parameters) std::fill_n(gradients.parameters, gradients.fields * population.neurons, T(0));
  if (gradients.time) std::fill_n(gradients.time, times, T(0));
}

/// Gradients of parts of the batch, of a fixed number: added up in a fixed order they are the same
/// whatever the number of threads. A part is added as soon as all before it are, so that there is no
/// more than one table for each thread.
template <class T>
class Parts {
 public:
  Parts(const Population<T>& population, Index lanes, Index threads, const Gradients<T>& gradients)
      : population_(population),
        gradients_(gradients),
        lanes_(lanes),
        chunks_(std::max<Index>(1, std::min<Index>(8, (population.batch + 1) / 2))),
        threads_(std::clamp<Index>(threads, 1, chunks_)),
        weight_(threads_ * size()),
        own_(gradients.parameters ? chunks_ * kFields * lanes : 0, 0.0) {}

  /// How many parts there are.
  Index count() const { return chunks_; }

  /// Calls with each sample, and its part's gradients by the padded table and by the lanes, or null;
  /// and with the number of the part.
  template <class Call>
  void run(Call&& call) {
    ThreadPool::shared().run(chunks_, threads_, [&](Index chunk) {
      try {
        double* own = own_.size() ? own_.data() + chunk * kFields * lanes_ : nullptr;
        // of those that are not added yet no two are as far apart as there are threads
        T* weight = weight_.data() + chunk % threads_ * size();
        std::fill_n(weight, size(), T(0));
        for (Index b = population_.batch * chunk / chunks_; b < population_.batch * (chunk + 1) / chunks_; ++b)
          call(b, weight, own, chunk);
        in_turn(chunk, [&] { add(weight); });
      } catch (...) {
        in_turn(-1, [&] { failed_ = true; });
        throw;
      }
    });
    add_lanes();
  }

 private:
  Index size() const { return (population_.rows + 1) * lanes_; }

  /// Calls when all parts before one have been added, or nobody waits for any longer.
  template <class Call>
  void in_turn(Index chunk, Call&& call) {
    std::unique_lock<std::mutex> lock(mutex_);
    turn_.wait(lock, [&] { return chunk < 0 || added_ == chunk || failed_; });
    call();
    if (chunk >= 0) ++added_;
    turn_.notify_all();
  }

  void add(const T* weight) {
    const Index neurons = population_.neurons;
    for (Index row = 0; row < population_.rows; ++row) {
      T* const sum = gradients_.weight + row * neurons;
      const T* const own = weight + row * lanes_;
      for (Index n = 0; n < neurons; ++n) sum[n] += own[n];
    }
  }

  void add_lanes() {
    if (!gradients_.parameters) return;
    const Index neurons = population_.neurons;
    for (Index field = 0; field < gradients_.fields; ++field)
      for (Index n = 0; n < neurons; ++n) {
        double sum = 0;
        for (Index chunk = 0; chunk < chunks_; ++chunk)
          sum += own_[(chunk * kFields + field) * lanes_ + n];
        gradients_.parameters[field * neurons + n] = T(sum);
      }
  }

  const Population<T>& population_;
  const Gradients<T>& gradients_;
  Index lanes_, chunks_, threads_;
  Array<T> weight_;
  Array<double> own_;
  std::mutex mutex_;
  std::condition_variable turn_;
  Index added_ = 0;
  bool failed_ = false;
};

// ---- forward

/// A list for which there is room: it never grows.
template <class One>
class Bounded {
 public:
  explicit Bounded(Index room) : all_(room) {}
  One* begin() { return all_.data(); }
  One* end() { return all_.data() + size_; }
  const One* begin() const { return all_.data(); }
  const One* end() const { return all_.data() + size_; }
  const One& front() const { return all_[0]; }
  const One& back() const { return all_[size_ - 1]; }
  One& operator[](Index n) { return all_[n]; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void clear() { size_ = 0; }
  void push_back(const One& one) { all_[size_++] = one; }
  void pop_back() { --size_; }

 private:
  Array<One> all_;
  Index size_ = 0;
};

/// `kBoxes`: what arrives opens or closes a box, and j is what these add up to.
template <class T, bool kBoxes>
class GroupForward {
  using V = Vector<T>;
  using Over = typename Everyone<T>::Over;
  static constexpr int kLanes = kWidth<T>;
  static constexpr Index kTogether = 4;  // vectors whose hits are looked at together
  static constexpr double kBelow = 1 - 8 * rounding_of(T());  // a bound, whatever rounding does

 public:
  GroupForward(const Population<T>& population, const Options& options, const Intervals<T>& intervals,
               const Feedback<T>& feedback, const DelayedRows<T>& delayed_rows, const Everyone<T>& everyone,
               const DenseRows<T>& table, const SparseRows<T>& sparse, const T* box_tolerance,
               const Spikes<T>& spikes, const Train<T>& train, const Log<T>& log)
      : population_(population),
        options_(options),
        intervals_(intervals),
        feedback_(feedback),
        delayed_rows_(delayed_rows),
        everyone_(everyone),
        table_(table),
        sparse_(sparse),
        box_tolerance_(box_tolerance),
        spikes_(spikes),
        train_(train),
        log_(log),
        lanes_(everyone.padded()),
        state_(3 * lanes_),
        boxes_(kBoxes ? 2 * lanes_ : 0, T(0)),
        ends_(everyone.uniform() ? 0 : everyone.vectors()),
        hits_(everyone.vectors() + kTogether, 0),
        arriving_(everyone.padded(), T(0)),
        pending_(table.zeros()),
        first_(lanes_),
        candidates_(lanes_) {}

  /// One sample.
  void run(Index sample) {
    begin(sample);
    Index next = 0;
    const Index arrivals = intervals_.used(sample);
    const Index most = 16 * (population_.arrivals + train_.events + 1);
    const auto edges = intervals_.edges(sample);
    const auto rows = intervals_.rows(sample);
    const bool prepared = everyone_.uniform();
    const Steps<T> steps = prepared ? intervals_.steps(sample) : Steps<T>();
    for (;;) {
      const bool arrives = next < arrivals;
      double until = edges[next + 1];
      const bool queued = queue_.acts_before(T(until), !arrives);
      if (queued) {
        until = queue_.next().due;
        if (T(until) <= T(now_)) until = now_;
      }
      const bool whole = prepared && !queued && now_ == edges[next];
      if (advance(until, whole ? steps[next] : Step<T>(), whole)) {
        if (fired_ > most) break;  // far beyond what there is room for
        continue;
      }
      now_ = std::max(now_, until);
      if (queued) {
        take(queue_.pop());
        continue;
      }
      if (!arrives) break;
      const Index of_table = rows[++next];
      add_row(of_table);
      write(of_table, T(1));
      prefetch(rows.at_clamped(next + 1));  // it may be far away
    }
    log_.used[sample_] = std::int32_t(std::min(step_, log_.steps));
    train_.needed[sample_] =
        std::int32_t(std::min<Index>(fired_, std::numeric_limits<std::int32_t>::max()));
  }

 private:
  void prefetch(Index row) const {
    if (sparse_.is_sparse(row)) return sparse_.prefetch(row);
    table_.prefetch(row);
  }

  T* v() { return state_.data(); }
  T* j() { return state_.data() + lanes_; }
  T* threshold() { return state_.data() + 2 * lanes_; }
  T& v(Index neuron) { return v()[neuron]; }
  T& j(Index neuron) { return j()[neuron]; }
  T& threshold(Index neuron) { return threshold()[neuron]; }

  void begin(Index sample) {
    sample_ = sample;
    const Index place = sample * population_.neurons, slots = options_.max_spikes;
    std::fill_n(spikes_.time + place * slots, population_.neurons * slots,
                std::numeric_limits<T>::infinity());
    std::fill_n(spikes_.slope + place * slots, population_.neurons * slots, T(1));
    std::fill_n(spikes_.count + place, population_.neurons, 0);
    std::fill_n(train_.time + sample * train_.events, train_.events,
                std::numeric_limits<T>::infinity());
    std::fill_n(train_.neuron + sample * train_.events, train_.events, 0);
    std::fill_n(log_.wait + sample * log_.steps, log_.steps, T(0));
    std::fill_n(log_.row + sample * log_.steps, log_.steps, std::int32_t(population_.rows));
    std::fill_n(log_.slope + sample * log_.steps, log_.steps, T(1));
    if (log_.origin) std::fill_n(log_.origin + sample * log_.steps, log_.steps, -1);
    queue_.clear();
    now_ = last_ = 0;
    reach_ = std::numeric_limits<double>::infinity();
    step_ = fired_ = 0;
    due_.clear();
    arrived();
    for (Index n = 0; n < everyone_.padded(); ++n) {
      const auto& part = everyone_.part(n / kLanes);
      const int lane = n % kLanes;
      v(n) = T(part.v_start[lane]);
      j(n) = T(part.j_start[lane]);
      if constexpr (kBoxes) {
        boxes_[n] = T(0);
        boxes_[lanes_ + n] = j(n);
      }
      threshold(n) = T(part.fires_at[lane]);
      if (part.starts_above[lane] && lane < part.count) due_.push_back(n);
    }
  }

  /// A neuron that may cross, with a time after the look before which it does not; inf: it does not
  /// before the window ends.
  struct Candidate {
    T bound;
    std::int32_t neuron;
  };

  struct First {
    Index neuron;
    Flow flow;  // until then
  };

  /// Time goes on to `until`, or to the next spike before that, which happens. Whether one did.
  ///
  /// `step`: until then, if it `is_known`.
  bool advance(double until, const Step<T>& step, bool is_known) {
    if (!due_.empty()) {
      catch_up();
      const Index neuron = due_.front();
      due_.erase(due_.begin());
      fire(neuron, v(neuron), j(neuron));
      return true;
    }
    if (!(until > now_)) return false;
    if (stay_ && until < seen_) leave();
    double wait;
    for (;;) {
      if (!stay_) {
        const double window = until - now_;
        const bool cut = window > reach_;
        look(is_known && !cut ? Over{window, step, {}}
                              : everyone_.over(cut ? reach_ : window, false));
        seen_ = cut ? now_ + reach_ : until;
      }
      wait = first_crossing();
      reach(wait, ahead_.t);
      if (!first_.empty()) break;
      if (seen_ < until) {  // further, from where all stand: each step that they take is rounded
        leave();
        continue;
      }
      go_to_end();
      return false;
    }
    const First first = first_.front();
    const auto [v_now, j_now] = state(first.neuron);
    go(wait, first);
    // Of several that cross at one time each fires, one after the other in the order of numbers.
    if (first_.size() > 1) catch_up();
    for (std::size_t n = 1; n < first_.size(); ++n) {
      const Index next = first_[n].neuron;
      v(next) = std::max(v(next), threshold(next));
      due_.push_back(next);
    }
    prefetch_next(first.neuron);
    fire(first.neuron, v_now * first.flow.em + j_now * first.flow.k, j_now * first.flow.es);
    return true;
  }

  /// Time goes on to a spike. Where few feel it all others stay where they are.
  void go(double wait, const First& first) {
    now_ += wait;
    since_ = compose(since_, first.flow);
    constexpr double kLeast = 0.5;  // what is left of v and of j: who stays is moved by its inverse
    stay_ = is_felt_by_few(first.neuron) && first_.size() == 1 && reach_ >= ahead_.t &&
            since_.em > kLeast && since_.es > kLeast;
    if (!stay_) leave();
  }

  /// Whether others can stay where they are when this one fires.
  bool is_felt_by_few(Index neuron) const {
    const Index row = feedback_.first_spike_row(population_) + neuron;
    return !kBoxes && everyone_.uniform() && (!feedback_.immediate || sparse_.is_sparse(row));
  }

  /// All that stayed are on their way to now.
  void leave() {
    stay_ = false;
    lags_ = now_ > base_;
    const double time = now_ - base_;
    if (lags_)
      lag_ = everyone_.uniform()
                 ? Over{time, {T(since_.em), T(since_.es), T(since_.k), T(0)}, {}}
                 : everyone_.over(time, false);
  }

  /// How far is looked next. Where many neurons fire before anything arrives, each look at all that
  /// time would find all of them again for each spike.
  void reach(double wait, double window) {
    // those who stay keep theirs
    const std::size_t most = !first_.empty() && is_felt_by_few(first_.front().neuron) ? 16 : 3;
    const bool crowd = candidates_.size() > most && !first_.empty();
    reach_ = crowd ? std::max(3 * wait, window / 16) : std::max(4 * reach_, 4 * window);
  }

  // ---- all neurons

  /// Everyone to now, with what arrives now.
  void catch_up() {
    if (stay_) leave();
    if (!lags_ && pending_ == table_.zeros()) return;
    if (lags_)
      everyone_.uniform() ? pass<true, true, true, false>({}) : pass<false, true, true, false>({});
    else
      pass<true, true, false, false>({});
    arrived();
  }

  /// Everyone to now, and who may cross in a window ahead. Where time constants differ coefficients
  /// cost more than a second pass.
  void look(const Over& ahead) {
    if (!everyone_.uniform()) catch_up();
    if (everyone_.uniform()) {
      if (everyone_.positive())
        lags_ ? pass<true, true, true, true>(ahead) : pass<true, true, false, true>(ahead);
      else
        lags_ ? pass<true, false, true, true>(ahead) : pass<true, false, false, true>(ahead);
    } else {
      everyone_.positive() ? pass<false, true, false, true>(ahead)
                           : pass<false, false, false, true>(ahead);
    }
    // the pass has not seen these
    for (const auto& [neuron, value] : assigned_) {
      const bool hit = may_cross(ahead.step, value, j(neuron), threshold(neuron));
      std::uint16_t& hits = hits_[neuron / kLanes];
      hits = (hits & ~(1u << neuron % kLanes)) | unsigned(hit) << neuron % kLanes;
    }
    arrived();
    ahead_ = ahead;
    base_ = now_;
    since_ = {1, 1, 0};
    find_candidates();
  }

  /// All neurons: from where they are to now, what arrives now, and a look ahead.
  // What stays is local: vectors that are stored may be anything, and members would be read again for
  // each.
  template <bool kUniform, bool kPositive, bool kLags, bool kLooks>
  void pass(const Over& ahead) {
    const Index vectors = everyone_.vectors();
    const T* const pending = pending_;
    T *const all_v = v(), *const all_j = j();
    [[maybe_unused]] T* const all_low = boxes_.data();
    const T* const all_thresholds = threshold();
    auto* const ends = ends_.data();
    std::uint16_t* const hits = hits_.data();
    V em, es, k, bound, em_then, es_then, k_then, bound_then;
    if constexpr (kUniform && kLags)
      everyone_.template coefficients<true>(lag_, 0, em, es, k, bound);
    if constexpr (kUniform && kLooks)
      everyone_.template coefficients<true>(ahead, 0, em_then, es_then, k_then, bound_then);
    const auto through = [&](Index q) __attribute__((always_inline)) -> unsigned {
      const Index at = q * kLanes;
      V v = load<T>(all_v + at), j = load<T>(all_j + at);
      if constexpr (kLags) {
        if constexpr (!kUniform) everyone_.template coefficients<false>(lag_, q, em, es, k, bound);
        v = v * em + j * k;
        j = j * es;
        store<T>(all_v + at, v);
      }
      if constexpr (kBoxes) {
        V low = load<T>(all_low + at);
        update_box_sum<T>(j, low, load<T>(pending + at), load<T>(all_low + lanes_ + at), load<T>(box_tolerance_ + at));
        store<T>(all_low + at, low);
      } else {
        j += load<T>(pending + at);
      }
      store<T>(all_j + at, j);
      if constexpr (!kLooks) return 0;
      if constexpr (!kUniform)
        everyone_.template coefficients<false>(ahead, q, em_then, es_then, k_then, bound_then);
      const V zero = {}, rest = v * em_then, pull = kPositive ? j : (j > zero ? j : zero);
      if constexpr (!kUniform) {
        store<T>(ends[q].v, rest + j * k_then);
        store<T>(ends[q].j, j * es_then);
      }
      return at_least(rest + pull * bound_then, load<T>(all_thresholds + at));
    };
    for (Index first = 0; first < vectors; first += kTogether) {
      std::uint64_t found = 0;
      if (first + kTogether <= vectors)
        for (Index part = 0; part < kTogether; ++part)
          found |= std::uint64_t(through(first + part)) << 16 * part;
      else
        for (Index part = 0; first + part < vectors; ++part)
          found |= std::uint64_t(through(first + part)) << 16 * part;
      if constexpr (kLooks) std::memcpy(hits + first, &found, sizeof(found));
    }
  }

  /// Nothing is on its way to now.
  void arrived() {
    lags_ = stay_ = false;
    if (pending_ == arriving_.data()) std::fill_n(arriving_.data(), arriving_.size(), T(0));
    pending_ = table_.zeros();
    for (const auto& [neuron, value] : assigned_) v(neuron) = value;
    assigned_.clear();
  }

  /// Everyone to the end of a window in which nobody fires.
  void go_to_end() {
    stay_ = false;
    if (everyone_.uniform()) {
      lag_ = ahead_;
      lags_ = true;
      return;
    }
    for (Index q = 0; q < everyone_.vectors(); ++q) {
      std::copy_n(ends_[q].v, kLanes, v() + q * kLanes);
      std::copy_n(ends_[q].j, kLanes, j() + q * kLanes);
    }
  }

  // ---- who crosses first

  /// Whether a neuron may cross in a window, as the pass over all sees it.
  template <bool kPositive = false>
  static bool may_cross(const Step<T>& ahead, T v, T j, T threshold) {
    const T pull = kPositive || j > T(0) ? j : T(0);
    return v * ahead.em + pull * ahead.bound >= threshold;
  }

  /// Those who cross first in a window, in the order of their numbers, and when.
  double first_crossing() {
    constexpr double kInfinite = std::numeric_limits<double>::infinity();
    first_.clear();
    const double gone = now_ - base_;
    double best = kInfinite;
    if (candidates_.size() > 1) {
      const auto less = [](const Candidate& a, const Candidate& b) { return a.bound < b.bound; };
      std::iter_swap(candidates_.begin(),
                     std::min_element(candidates_.begin(), candidates_.end(), less));
    }
    for (Candidate& candidate : candidates_) {
      const bool never = candidate.bound == std::numeric_limits<T>::infinity();
      if (never || candidate.bound > best + gone) continue;
      const Crossing found = crossing(candidate.neuron);
      if (found.wait < best) first_.clear();
      if (found.wait <= best && found.wait < kInfinite) {
        best = found.wait;
        first_.push_back({candidate.neuron, found.flow});
      }
      candidate.bound = T((gone + found.wait) * kBelow);
    }
    if (first_.size() > 1)
      std::sort(first_.begin(), first_.end(),
                [](const First& a, const First& b) { return a.neuron < b.neuron; });
    return best;
  }

  /// Who may cross in the window of a look, by what it saw.
  void find_candidates() {
    candidates_.clear();
    for (Index first = 0; first < everyone_.vectors(); first += kTogether) {
      std::uint64_t all;
      std::memcpy(&all, hits_.data() + first, sizeof(all));
      while (all) {
        const int part = __builtin_ctzll(all) / 16;
        consider(first + part, unsigned(all >> 16 * part) & 0xffffu);
        all &= ~(std::uint64_t(0xffff) << 16 * part);
      }
    }
  }

  void consider(Index q, unsigned hit) {
    T waits[kLanes];
    store<T>(waits, least_waits(q));
    for (; hit; hit &= hit - 1) {
      const int lane = __builtin_ctz(hit);
      add_candidate(q * kLanes + lane, waits[lane]);
    }
  }

  void add_candidate(Index neuron, T bound) {
    candidates_.push_back({bound, std::int32_t(neuron)});
  }

  void remove_candidate(Index neuron) {
    for (Candidate& candidate : candidates_)
      if (candidate.neuron == neuron) {
        candidate = candidates_.back();
        return candidates_.pop_back();
      }
  }

  /// The row of the one that is likely to fire next, after this one, may be far away.
  void prefetch_next(Index fires) const {
    if (!feedback_.immediate) return;
    Candidate next{std::numeric_limits<T>::infinity(), std::int32_t(fires)};
    for (const Candidate& one : candidates_)
      if (one.neuron != fires && one.bound < next.bound) next = one;
    if (next.neuron != fires) prefetch(feedback_.first_spike_row(population_) + next.neuron);
  }

  /// Of a vector of neurons, times after the look before which they do not cross; 0 where nothing is
  /// known.
  V least_waits(Index q) {
    const V zero = {}, infinite = zero + std::numeric_limits<T>::infinity();
    const Index at = q * kLanes;
    const V v = load<T>(this->v() + at), threshold = load<T>(this->threshold() + at);
    V j = load<T>(this->j() + at);
    j = j > zero ? j : zero;
    const V leak = load<T>(everyone_.leaks() + at);
    const V wait = (threshold - v) / ((j - v) * leak) * T(kBelow);
    return (v < threshold) & (j > threshold) & (wait < infinite) ? wait : zero;
  }

  /// The same of one neuron.
  T least_wait(Index neuron) { return least_waits(neuron / kLanes)[neuron % kLanes]; }

  /// A neuron's v and j now.
  std::pair<T, T> state(Index neuron) {
    const T v_then = v(neuron), j_then = j(neuron);
    if (!(now_ > base_)) return {v_then, j_then};
    return {T(v_then * since_.em + j_then * since_.k), T(j_then * since_.es)};
  }

  /// When a neuron crosses, after now; inf where it does not within the window ahead.
  Crossing crossing(Index neuron) {
    const TimeConstants& taus = everyone_.taus(neuron);
    const auto [v_now, j_now] = state(neuron);
    const double threshold = everyone_.threshold(neuron);
    if (v_now >= threshold) return {0, {1, 1, 0}};
    T v_end, j_end;
    if (everyone_.uniform()) {
      v_end = v(neuron) * ahead_.step.em + j(neuron) * ahead_.step.k;
      j_end = j(neuron) * ahead_.step.es;
    } else {
      v_end = ends_[neuron / kLanes].v[neuron % kLanes];
      j_end = ends_[neuron / kLanes].j[neuron % kLanes];
    }
    constexpr double kTiny = double(std::numeric_limits<T>::min()) / rounding_of(T());
    const bool crosses = v_end >= threshold || (has_peak(taus, v_now, j_now, v_end, j_end, kTiny) &&
                                                peak_reaches(taus, v_now, j_now, threshold));
    if (!crosses) return {std::numeric_limits<double>::infinity(), {}};
    return find_crossing(taus, v_now, j_now, threshold, ahead_.t - (now_ - base_), v_end >= threshold,
                 tolerance_of(T()));
  }

  // ---- what happens

  /// A spike now, of a neuron at (v, j), and what it sends.
  void fire(Index neuron, double v_now, double j_now) {
    const double height = everyone_.threshold(neuron);
    const T slope = T(everyone_.taus(neuron).rate(height, j_now));
    std::int32_t& count = spikes_.count[sample_ * population_.neurons + neuron];
    if (count < options_.max_spikes) {
      const Index place =
          (sample_ * population_.neurons + neuron) * options_.max_spikes + count;
      spikes_.time[place] = T(now_);
      spikes_.slope[place] = slope;
    }
    ++count;
    if (fired_ < train_.events) {
      train_.time[sample_ * train_.events + fired_] = T(now_);
      train_.neuron[sample_ * train_.events + fired_] = std::int32_t(neuron);
    }
    ++fired_;
    const T refractory = feedback_.refractory ? feedback_.refractory[neuron] : T(0);
    double reset = everyone_.v_reset(neuron);
    if (options_.subtract && !(refractory > 0)) reset += std::max(v_now - height, 0.0);
    if (options_.once || refractory > 0)
      threshold(neuron) = std::numeric_limits<T>::infinity();
    else if (T(reset) >= threshold(neuron))
      due_.insert(due_.begin(), neuron);
    assign(neuron, T(reset));
    const Index row = feedback_.first_spike_row(population_) + neuron;
    if (feedback_.immediate) add_row(row);
    write(row, slope);
    if (refractory > 0 && !options_.once) queue_.push(now_ + refractory, -1 - neuron, fired_ - 1);
    delayed_rows_.for_each(neuron, [&](Index number) {
      queue_.push(now_ + feedback_.delay[number], number, fired_ - 1);
    });
  }

  /// Gives a neuron's v a value, now.
  void assign(Index neuron, T value) {
    if (stay_) {
      v(neuron) = T((value - j(neuron) * since_.k) / since_.em);
      remove_candidate(neuron);
      if (may_cross(ahead_.step, v(neuron), j(neuron), threshold(neuron)))
        add_candidate(neuron, least_wait(neuron));
    } else if (lags_) {
      assigned_.push_back({neuron, value});
    } else {
      v(neuron) = value;
    }
  }

  /// What comes from the queue, now.
  void take(const typename EventQueue<T>::QueuedEvent& coming) {
    if (coming.is_release()) {
      const Index neuron = -1 - coming.number;
      const double reset = everyone_.v_reset(neuron);
      catch_up();
      v(neuron) = T(reset);
      threshold(neuron) = T(everyone_.threshold(neuron));
      if (v(neuron) >= threshold(neuron)) due_.push_back(neuron);
      const T slope = T(everyone_.taus(neuron).rate(reset, j(neuron)));
      write(coming.number, slope, coming.spike);
    } else {
      const Index row = feedback_.first_delayed_row(population_) + coming.number;
      add_row(row);
      write(row, T(1), coming.spike);
    }
  }

  /// A row of the table arrives now; it is added in the next pass.
  void add_row(Index row) {
    const bool sparse = sparse_.is_sparse(row);
    if (stay_ && sparse) return touch(row);
    if (stay_) leave();
    // boxes turn one by one: rounded together, some would never close
    const bool joins = !kBoxes && sparse && pending_ == arriving_.data();
    if (pending_ != table_.zeros() && !joins) catch_up();
    if (!sparse) {
      pending_ = table_[row];
      return;
    }
    T* const arriving = arriving_.data();
    const auto arrive = [=](Index neuron, T weight) { arriving[neuron] += weight; };
    sparse_.for_each(row, arrive, arrive);
    pending_ = arriving;
  }

  /// A sparse row arrives now at some who stay: as if other v and j had begun.
  void touch(Index row) {
    everyone_.positive() ? touch<true>(row) : touch<false>(row);
  }

  template <bool kPositive>
  void touch(Index row) {
    const T to_j = T(1 / since_.es), to_v = T(-since_.k / (since_.es * since_.em));
    // what is stored may be anything: members would be read again for each
    const Step<T> ahead = ahead_.step;
    const Index lanes = lanes_;
    T* const all = state_.data();
    const auto raise = [=](Index neuron, T weight) __attribute__((always_inline)) {
      T* const own = all + neuron;
      const T v = own[0] += weight * to_v, j = own[lanes] += weight * to_j;
      if (__builtin_expect(may_cross<kPositive>(ahead, v, j, own[2 * lanes]), 0)) {
        remove_candidate(neuron);
        add_candidate(neuron, least_wait(neuron));
      }
    };
    // whose V is lowered does not cross any earlier
    const auto lower = [=](Index neuron, T weight) __attribute__((always_inline)) {
      T* const own = all + neuron;
      own[0] += weight * to_v;
      own[lanes] += weight * to_j;
    };
    sparse_.for_each(row, raise, lower);
  }

  void write(Index row, T slope, Index origin = -1) {
    if (step_ < log_.steps) {
      const Index place = sample_ * log_.steps + step_;
      if (log_.origin) log_.origin[place] = std::int32_t(origin);
      log_.wait[place] = T(now_ - last_);
      log_.row[place] = std::int32_t(row);
      log_.slope[place] = slope;
    }
    last_ = now_;
    ++step_;
  }

  const Population<T>& population_;
  const Options& options_;
  const Intervals<T>& intervals_;
  const Feedback<T>& feedback_;
  const DelayedRows<T>& delayed_rows_;
  const Everyone<T>& everyone_;
  const DenseRows<T>& table_;
  const SparseRows<T>& sparse_;
  const T* const box_tolerance_;  // of each neuron, under boxes (`compute_box_tolerances`)
  const Spikes<T>& spikes_;
  const Train<T>& train_;
  const Log<T>& log_;
  EventQueue<T> queue_;
  Index lanes_;
  Array<T> state_;  // v, j and the threshold of all: of now, or of before the lag
  Array<T> boxes_;  // what j is beside itself, and where it stands when no box is open
  struct End {
    T v[kLanes], j[kLanes];
  };
  Array<End> ends_;  // of the window; where time constants differ
  Array<std::uint16_t> hits_;  // who may cross, a bit for each lane of a vector
  Over lag_ = {};         // the way to now
  bool lags_ = false;     // whether there is one
  bool stay_ = false;     // all are where they were at the last look, and move from there to now
  Over ahead_ = {};       // the window of the last look
  double base_ = 0, seen_ = 0;  // when it was, and when the window ends
  Flow since_ = {};       // from then to now
  Array<T> arriving_;     // sparse rows that arrive now
  const T* pending_;      // what arrives now and is not in j yet
  struct Assigned {
    Index neuron;
    T v;
  };
  std::vector<Assigned> assigned_;  // v of neurons now, wherever it comes from before
  std::vector<Index> due_;  // who fires now
  Bounded<First> first_;  // who crosses first
  Bounded<Candidate> candidates_;
  Index sample_ = 0, step_ = 0, fired_ = 0;
  double now_ = 0, last_ = 0;
  double reach_ = 0;  // seconds that are looked ahead at most
};

/// Returns 0, or NaN where some weight that is not in the table is not finite.
template <class T>
T group_forward(const Population<T>& population, const Options& options, const Feedback<T>& feedback,
                const SortedArrivals<T>& sorted, const Spikes<T>& spikes, const Train<T>& train,
                const Log<T>& log) {
  Intervals<T> intervals(population, sorted);
  intervals.compute_steps(options.threads, false);
  const Everyone<T> everyone(population, intervals.uniform(), intervals.taus());
  const SparseRows<T> sparse(population, feedback, options.threads);
  const DenseRows<T> table(population, feedback, &sparse, options.threads);
  const DelayedRows<T> delayed_rows(feedback, population.neurons);
  const auto run = [&](auto in_boxes, const T* box_tolerance) {
    ThreadPool::shared().run(population.batch, options.threads, [&](Index b) {
      GroupForward<T, decltype(in_boxes)::value> forward(population, options, intervals, feedback, delayed_rows,
                                                         everyone, table, sparse, box_tolerance, spikes,
                                                         train, log);
      forward.run(b);
    });
  };
  if (intervals.taus().ratio == Ratio::kConstantCurrent) {
    Array<T> box_tolerance(everyone.padded(), T(0));
    compute_box_tolerances(population.weight, feedback.rows_in_table(population), int(population.neurons), box_tolerance.data());
    run(std::true_type(), box_tolerance.data());
  } else {
    run(std::false_type(), nullptr);
  }
  return sparse.zero_if_finite() + table.zero_if_finite();
}

// ---- backward

/// dL/dt of spikes: by neuron and slot, and in the order in which they act.
template <class T>
struct Cotangents {
  const T* spikes;
  const T* train;
};

template <class T>
class GroupBackward {
  using V = Vector<T>;
  static constexpr int kLanes = kWidth<T>;

 public:
  GroupBackward(const Population<T>& population, const Options& options, const Feedback<T>& feedback,
                const Everyone<T>& everyone, const DenseRows<T>& table, const SparseRows<T>& sparse,
                const Spikes<T>& spikes, const Train<T>& train, const Log<T>& log,
                const Cotangents<T>& cotangents, bool with_taus)
      : population_(population),
        options_(options),
        feedback_(feedback),
        everyone_(everyone),
        table_(table),
        sparse_(sparse),
        spikes_(spikes),
        train_(train),
        log_(log),
        cotangents_(cotangents),
        with_taus_(with_taus),
        lanes_(everyone.padded()),
        state_(7 * lanes_),
        nowhere_(lanes_, T(0)),
        left_(population.neurons) {}

  /// Adds to the gradients: `by_weight` like the table, `by_time` (arrivals,) in order or null, `own`
  /// (fields, lanes) or null, `by_delay` (delayed,).
  void run(Index sample, Index arrivals, T* by_weight, T* by_time, double* own, double* by_delay) {
    sample_ = sample;
    own_ = own;
    std::fill_n(state_.data(), state_.size(), T(0));
    std::copy_n(spikes_.count + sample * population_.neurons, population_.neurons, left_.data());
    Index fired = std::max<Index>(train_.needed[sample], 0);
    Index arrival = arrivals;
    const Index steps = std::clamp<Index>(log_.used[sample], 0, log_.steps);
    const Index first_spike_row = feedback_.first_spike_row(population_);
    const Index first_delayed_row = feedback_.first_delayed_row(population_);
    passed_.assign(log_.origin ? std::min(fired, steps) : 0, 0.0);
    double later = 0;
    for (Index step = steps - 1; step >= 0; --step) {
      const Index place = sample * log_.steps + step, row = log_.row[place];
      const std::int32_t origin = log_.origin ? log_.origin[place] : -1;
      const bool fires = row >= first_spike_row && row < first_spike_row + population_.neurons;
      const bool comes = origin >= 0 && row >= first_delayed_row && row - first_delayed_row < feedback_.delayed;
      const bool timed = fires || comes || by_time;
      const Index of_table = rows_in_table(row);
      // the row of the step before this one is known, and may be far away
      const Index before = rows_in_table(step > 0 ? log_.row[place - 1] : -1);
      ahead_ = by_weight + before * lanes_;
      if (sparse_.is_sparse(before)) sparse_.prefetch(before);
      const double moved = back(later, of_table, by_weight, timed);
      later = log_.wait[place];
      if (fires) {
        --fired;
        spike(row - first_spike_row, log_.slope[place], fired, moved + passed_to(fired));
      } else if (comes) {
        by_delay[row - first_delayed_row] += moved;
        pass(origin, moved);
      } else if (row < 0) {
        if (row >= -population_.neurons) pass(origin, let_go(-1 - row, log_.slope[place]));
      } else if (arrival > 0) {
        --arrival;
        if (by_time) by_time[arrival] = T(moved);
      }
    }
    flow(later);
    if (own_) begin();
  }

 private:
  /// What there is no row of, is the row of zeros.
  Index rows_in_table(Index row) const { return row < 0 || row > population_.rows ? population_.rows : row; }
  T* p_v() { return state_.data(); }
  T* p_j() { return state_.data() + lanes_; }
  T* v_mem() { return state_.data() + 2 * lanes_; }
  T* j_mem() { return state_.data() + 3 * lanes_; }
  T* j_syn() { return state_.data() + 4 * lanes_; }
  T* by_mem() { return state_.data() + 5 * lanes_; }
  T* by_syn() { return state_.data() + 6 * lanes_; }
  double& own(Field field, Index neuron) { return own_[field * lanes_ + neuron]; }

  /// dL/dt that what a spike sent passed on to it.
  double passed_to(Index spike) const {
    return spike >= 0 && spike < Index(passed_.size()) ? passed_[spike] : 0.0;
  }
  void pass(Index spike, double moved) {
    if (spike >= 0 && spike < Index(passed_.size())) passed_[spike] += moved;
  }

  void flow(double time) { back(time, population_.rows, nullptr, false); }

  /// Back over a time, and through what arrives at its begin: its row of the gradient, and dL/dt.
  double back(double time, Index row, T* by_weight, bool timed) {
    const std::true_type yes;
    const std::false_type no;
    if (with_taus_) {
      if (everyone_.uniform()) return step_back(yes, yes, yes, time, row, by_weight);
      return step_back(yes, no, yes, time, row, by_weight);
    }
    if (!everyone_.uniform()) return step_back(yes, no, no, time, row, by_weight);
    if (timed && sparse_.is_sparse(row)) {
      step_back(no, yes, no, time, row, by_weight);
      const T *const of_v = p_v(), *const of_j = p_j();
      const T gain = everyone_.gains()[0], synaptic = everyone_.synaptics()[0];
      return sparse_.sum(row, [&](Index n, T weight) {
        return weight * (of_j[n] * synaptic - of_v[n] * gain);
      });
    }
    return timed ? step_back(yes, yes, no, time, row, by_weight)
                 : step_back(no, yes, no, time, row, by_weight);
  }

  template <class Timed, class Uniform, class WithTaus>
  double step_back(Timed, Uniform, WithTaus, double time, Index row, T* by_weight) {
    constexpr bool kTimed = Timed::value, kUniform = Uniform::value, kWithTaus = WithTaus::value;
    const auto over = everyone_.over(time, kWithTaus);
    const T* weights = table_[row];
    // nothing is asked for of a mere flow: its row goes to where nobody looks
    T* by_row = by_weight ? by_weight + row * lanes_ : nowhere_.data();
    T *const all_v = p_v(), *const all_j = p_j();
    const T* const ahead = ahead_;
    const T *const gains = everyone_.gains(), *const synaptics = everyone_.synaptics();
    const Index vectors = everyone_.vectors();
    V moved = {}, em, es, k, bound, gain, synaptic;
    if constexpr (kUniform) everyone_.template coefficients<true>(over, 0, em, es, k, bound);
    if constexpr (kUniform && kTimed) {
      gain = broadcast(gains[0]);
      synaptic = broadcast(synaptics[0]);
    }
    for (Index q = 0; q < vectors; ++q) {
      const Index at = q * kLanes;
      V v = load<T>(all_v + at), j = load<T>(all_j + at);
      __builtin_prefetch(ahead + at, 1);
      if constexpr (!kUniform) everyone_.template coefficients<false>(over, q, em, es, k, bound);
      if constexpr (kWithTaus) {
        V em_mem, k_mem, es_syn, k_syn;
        everyone_.template derivatives<kUniform>(over, q, em_mem, k_mem, es_syn, k_syn);
        const V of_v = load<T>(v_mem() + at), of_j = load<T>(j_mem() + at);
        const V of_s = load<T>(j_syn() + at), w = load<T>(weights + at);
        const V j_by_mem = of_v * k + of_j * es + v * k_mem;
        const V j_by_syn = of_s * es + v * k_syn + j * es_syn;
        store<T>(v_mem() + at, of_v * em + v * em_mem);
        store<T>(j_mem() + at, j_by_mem);
        store<T>(j_syn() + at, j_by_syn);
        store<T>(by_mem() + at, load<T>(by_mem() + at) + w * j_by_mem);
        store<T>(by_syn() + at, load<T>(by_syn() + at) + w * j_by_syn);
      }
      j = v * k + j * es;
      v = v * em;
      store<T>(all_v + at, v);
      store<T>(all_j + at, j);
      store<T>(by_row + at, load<T>(by_row + at) + j);
      if constexpr (kTimed) {
        if constexpr (!kUniform) {
          gain = load<T>(gains + at);
          synaptic = load<T>(synaptics + at);
        }
        moved += load<T>(weights + at) * (j * synaptic - v * gain);
      }
    }
    return kTimed ? double(horizontal_sum(moved)) : 0;
  }

  /// Back to before a spike, whose own arrivals moved dL/dt by `sent`.
  void spike(Index neuron, double slope, Index fired, double sent) {
    const TimeConstants& taus = everyone_.taus(neuron);
    const double height = everyone_.threshold(neuron) - everyone_.v_reset(neuron);
    const Index slot = --left_[neuron];
    double drive = sent;
    const Index place = (sample_ * population_.neurons + neuron) * options_.max_spikes + slot;
    const bool recorded = slot >= 0 && slot < options_.max_spikes;
    if (recorded) drive += cotangents_.spikes[place];
    if (fired >= 0 && fired < train_.events)
      drive += cotangents_.train[sample_ * train_.events + fired];
    const double p = p_v()[neuron];
    const bool starts_above = everyone_.starts_above(neuron) && recorded && spikes_.time[place] == 0;
    slope = std::max(slope, options_.min_slope * height * taus.leak);
    const double total = drive - p * height * taus.leak;
    const double lam = starts_above ? 0.0 : -total / slope;
    if (own_) {
      own(kThreshold, neuron) -= lam;
      if (options_.subtract || !starts_above) {
        own(kThreshold, neuron) -= p;
        own(kReset, neuron) += p;
        own(kTauMem, neuron) -= height * v_mem()[neuron];
      }
    }
    p_v()[neuron] = T(p + lam);
  }

  /// Back to before the end of a refractory time, in which v stood at v_reset; dL/dt of it.
  double let_go(Index neuron, double slope) {
    const double p = p_v()[neuron];
    if (own_) {
      own(kReset, neuron) += p;
      own(kTauMem, neuron) += everyone_.v_reset(neuron) * v_mem()[neuron];
    }
    p_v()[neuron] = v_mem()[neuron] = T(0);
    return std::isfinite(slope) ? -p * slope : 0.0;
  }

  void begin() {
    for (Index n = 0; n < population_.neurons; ++n) {
      const auto& part = everyone_.part(n / kLanes);
      const int lane = n % kLanes;
      const bool lowered = part.starts_above[lane] && !options_.subtract;
      const double v = lowered ? part.v_reset[lane] : part.v_start[lane], j = part.j_start[lane];
      own(lowered ? kReset : kStart, n) += p_v()[n];
      own(kCurrent, n) += p_j()[n];
      own(kTauMem, n) += v * v_mem()[n] + j * j_mem()[n] + by_mem()[n];
      own(kTauSyn, n) += j * j_syn()[n] + by_syn()[n];
    }
  }

  const Population<T>& population_;
  const Options& options_;
  const Feedback<T>& feedback_;
  const Everyone<T>& everyone_;
  const DenseRows<T>& table_;
  const SparseRows<T>& sparse_;
  const Spikes<T>& spikes_;
  const Train<T>& train_;
  const Log<T>& log_;
  const Cotangents<T>& cotangents_;
  bool with_taus_;
  Index lanes_, sample_ = 0;
  Array<T> state_, nowhere_;
  std::vector<std::int32_t> left_;  // spikes of each neuron before the step
  std::vector<double> passed_;      // dL/dt of each spike, by what it sent with a delay
  double* own_ = nullptr;
  const T* ahead_ = nullptr;  // the row of the gradient that comes next
};

/// `by_delay`: (delayed,).
template <class T>
void group_backward(const Population<T>& population, const Options& options, const Feedback<T>& feedback,
                    const SortedArrivals<T>& sorted, const Spikes<T>& spikes, const Train<T>& train,
                    const Log<T>& log, const Cotangents<T>& cotangents,
                    const Gradients<T>& gradients, T* by_delay) {
  begin_gradients(population, gradients, population.batch * population.arrivals);
  std::fill_n(by_delay, feedback.delayed, T(0));
  if (population.batch == 0 || population.neurons == 0) return;
  const Intervals<T> intervals(population, sorted);
  const Everyone<T> everyone(population, intervals.uniform(), intervals.taus());
  const SparseRows<T> sparse(population, feedback, options.threads);
  const bool skips = everyone.uniform() && !gradients.with_taus();
  const DenseRows<T> table(population, feedback, skips ? &sparse : nullptr, options.threads);
  Parts<T> parts(population, everyone.padded(), options.threads, gradients);
  Array<double> delays(parts.count() * feedback.delayed, 0.0);
  parts.run([&](Index b, T* by_weight, double* own, Index part) {
    GroupBackward<T> backward(population, options, feedback, everyone, table, sparse, spikes, train, log,
                              cotangents, gradients.with_taus());
    std::vector<T> by_time(gradients.time ? population.arrivals : 0);
    const Index used = intervals.used(b);
    backward.run(b, used, by_weight, gradients.time ? by_time.data() : nullptr, own,
                 delays.data() + part * feedback.delayed);
    if (!gradients.time) return;
    for (Index n = 0; n < used; ++n) {
      const Index slot = sorted.slot[b * population.arrivals + n];
      if (slot >= 0 && slot < population.arrivals)
        gradients.time[b * population.arrivals + slot] = by_time[n];
    }
  });
  for (Index n = 0; n < feedback.delayed; ++n) {
    double sum = 0;
    for (Index part = 0; part < parts.count(); ++part) sum += delays[part * feedback.delayed + n];
    by_delay[n] = T(sum);
  }
}

}  // namespace native
