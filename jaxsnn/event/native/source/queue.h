// Events scheduled inside a recurrent group: delayed arrivals and the ends of refractory periods.

#pragma once

#include "tiles.h"

namespace native {

/// How the spikes of a group reach its own neurons. The rows of weights are, in this order: rows of
/// arrivals from outside; `delayed` rows of delayed projections; and, if `immediate`, one row per
/// neuron, which acts at the time of that neuron's spike:
///
///     0 ... first_delayed_row ... first_spike_row ... rows
///     | outside | delayed | immediate, one per neuron |
///
/// The immediate rows may be given separately as a matrix (targets, sources) and a factor per
/// target.
template <class T>
struct Feedback {
  bool immediate;              // whether there are immediate rows
  Index delayed;               // number of delayed rows
  const T* delay;              // (delayed,) seconds
  const std::int32_t* sender;  // (delayed,) presynaptic neuron
  const T* refractory;         // (neurons,) seconds; null: no refractory period
  const T* by_target;  // (neurons, neurons) immediate weights; null: they are rows of the table
  const T* scale;      // (neurons,) factor for each target of `by_target`
  /// (rows + 1,) first synapse of each row; null: the table is dense. With lists of synapses the
  /// table of weights is (synapses,), row by row.
  const std::int32_t* list_begin = nullptr;
  const std::int32_t* list_target = nullptr;  // (synapses,) postsynaptic neuron

  bool uses_queue() const { return delayed > 0 || refractory; }

  /// Return the row that stands for a spike of neuron 0 in the log. Without immediate rows it is
  /// beyond the end of the table, so that it cannot be mistaken for an arrival.
  Index first_spike_row(const Population<T>& population) const {
    return immediate ? population.rows - population.neurons : population.rows + 1;
  }
  Index first_delayed_row(const Population<T>& population) const {
    return population.rows - delayed - (immediate ? population.neurons : 0);
  }
  /// Return the number of rows that are stored in the table of weights.
  Index rows_in_table(const Population<T>& population) const {
    return population.rows - (by_target ? population.neurons : 0);
  }
};

/// Delayed rows, grouped by presynaptic neuron.
template <class T>
class DelayedRows {
 public:
  DelayedRows(const Feedback<T>& feedback, Index neurons) : begin_(neurons + 1, 0) {
    for (Index n = 0; n < feedback.delayed; ++n)
      if (is_neuron(feedback.sender[n], neurons)) ++begin_[feedback.sender[n] + 1];
    for (Index n = 0; n < neurons; ++n) begin_[n + 1] += begin_[n];
    rows_.resize(begin_[neurons]);
    std::vector<Index> next_place(begin_.begin(), begin_.end() - 1);
    for (Index n = 0; n < feedback.delayed; ++n)
      if (is_neuron(feedback.sender[n], neurons)) rows_[next_place[feedback.sender[n]]++] = n;
  }

  /// Return the maximum number of rows of one neuron.
  Index max_deliveries() const {
    Index most = 0;
    for (std::size_t n = 1; n < begin_.size(); ++n) most = std::max(most, begin_[n] - begin_[n - 1]);
    return most;
  }

  template <class Call>
  void for_each(Index neuron, Call&& call) const {
    for (Index n = begin_[neuron]; n < begin_[neuron + 1]; ++n) call(rows_[n]);
  }

 private:
  static bool is_neuron(Index neuron, Index neurons) { return neuron >= 0 && neuron < neurons; }

  std::vector<Index> begin_, rows_;
};

/// Priority queue, earliest event first. Events whose times are equal after rounding are
/// simultaneous; among them, refractory periods end before anything arrives.
template <class T>
class EventQueue {
 public:
  struct QueuedEvent {
    T rounded;  // the time, rounded to the precision of the network
    double due;
    Index number;  // index of a delayed row; -1 - n: neuron n's refractory period ends
    Index spike;   // number of the spike that caused the event

    bool is_release() const { return number < 0; }
  };

  bool empty() const { return heap_.empty(); }
  const QueuedEvent& next() const { return heap_.front(); }
  void clear() { heap_.clear(); }

  /// Return whether the first event acts before `time`: the time of an arrival from outside or, if
  /// `is_end`, the end of the simulation.
  bool acts_before(T time, bool is_end) const {
    if (heap_.empty()) return false;
    const QueuedEvent& first = heap_.front();
    return first.rounded < time || (first.rounded == time && first.is_release() && !is_end);
  }

  void push(double due, Index number, Index spike) {
    if (!(due < std::numeric_limits<double>::infinity())) return;  // inf or NaN: never acts
    heap_.push_back({T(due), due, number, spike});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }

  QueuedEvent pop() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const QueuedEvent first = heap_.back();
    heap_.pop_back();
    return first;
  }

 private:
  static bool later(const QueuedEvent& a, const QueuedEvent& b) {
    if (a.rounded != b.rounded) return a.rounded > b.rounded;
    if (a.is_release() != b.is_release()) return b.is_release();
    return a.spike != b.spike ? a.spike > b.spike : a.number > b.number;
  }

  std::vector<QueuedEvent> heap_;
};

}  // namespace native
