// What is on its way in a recurrent group: spikes that arrive with a delay, and the ends of refractory
// times.

#pragma once

#include "tiles.h"

namespace native {

/// What the neurons of a group send. There are rows of what comes from outside, then of what arrives
/// with a delay, then, if there are any, one for each neuron: what arrives at once. The last may stand
/// apart from the table of the others, as a matrix (targets, sources) and a factor for each target.
template <class T>
struct Feedback {
  bool immediate;              // whether there are rows of the last kind
  Index delayed;               // how many there are of the second
  const T* delay;              // (delayed,) seconds
  const std::int32_t* sender;  // (delayed,) neurons
  const T* refractory;         // (neurons,) seconds; null: nobody is held
  const T* by_target;          // (neurons, neurons) what arrives at once; null: it is in the table
  const T* scale;              // (neurons,) by which that is multiplied

  bool queues() const { return delayed > 0 || refractory; }

  /// What the log knows the spikes of neuron 0 by; behind the table, where nothing arrives at once.
  Index first_spike(const Population<T>& population) const {
    return immediate ? population.rows - population.neurons : population.rows + 1;
  }
  Index first_delayed(const Population<T>& population) const {
    return population.rows - delayed - (immediate ? population.neurons : 0);
  }
  /// How many rows there are in the table.
  Index in_table(const Population<T>& population) const {
    return population.rows - (by_target ? population.neurons : 0);
  }
};

/// The rows with a delay, neuron by neuron.
template <class T>
class Senders {
 public:
  Senders(const Feedback<T>& feedback, Index neurons) : begin_(neurons + 1, 0) {
    for (Index n = 0; n < feedback.delayed; ++n)
      if (is_one(feedback.sender[n], neurons)) ++begin_[feedback.sender[n] + 1];
    for (Index n = 0; n < neurons; ++n) begin_[n + 1] += begin_[n];
    numbers_.resize(begin_[neurons]);
    std::vector<Index> next(begin_.begin(), begin_.end() - 1);
    for (Index n = 0; n < feedback.delayed; ++n)
      if (is_one(feedback.sender[n], neurons)) numbers_[next[feedback.sender[n]]++] = n;
  }

  template <class Call>
  void each(Index neuron, Call&& call) const {
    for (Index n = begin_[neuron]; n < begin_[neuron + 1]; ++n) call(numbers_[n]);
  }

 private:
  static bool is_one(Index neuron, Index neurons) { return neuron >= 0 && neuron < neurons; }

  std::vector<Index> begin_, numbers_;
};

/// The next thing first. Times that are the same number when rounded are one time, at which refractory
/// times end before anything arrives.
template <class T>
class Queue {
 public:
  struct Coming {
    T rounded;     // its time
    double due;
    Index number;  // of the rows with a delay; negative: -1 - n where neuron n is let go
    Index spike;   // that sent it

    bool ends() const { return number < 0; }
  };

  bool empty() const { return heap_.empty(); }
  const Coming& next() const { return heap_.front(); }
  void clear() { heap_.clear(); }

  /// Whether the next thing acts before what comes from outside at a time, or before the end.
  bool acts_before(T time, bool is_end) const {
    if (heap_.empty()) return false;
    const Coming& first = heap_.front();
    return first.rounded < time || (first.rounded == time && first.ends() && !is_end);
  }

  void push(double due, Index number, Index spike) {
    if (!(due < std::numeric_limits<double>::infinity())) return;  // it never comes
    heap_.push_back({T(due), due, number, spike});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }

  Coming pop() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Coming first = heap_.back();
    heap_.pop_back();
    return first;
  }

 private:
  static bool later(const Coming& a, const Coming& b) {
    if (a.rounded != b.rounded) return a.rounded > b.rounded;
    if (a.ends() != b.ends()) return b.ends();
    return a.spike != b.spike ? a.spike > b.spike : a.number > b.number;
  }

  std::vector<Coming> heap_;
};

}  // namespace native
