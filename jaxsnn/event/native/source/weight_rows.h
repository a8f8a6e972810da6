// The rows of weights of a group, as the loop over its events reads them: those that are mostly zeros
// in lists, all others in whole vectors.

#pragma once

#include "queue.h"

namespace native {

template <class T>
Index padded_lanes(Index neurons) {
  return (neurons + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
}

/// 0, or NaN where some of the numbers are not finite.
template <class T>
T zero_if_finite(const T* numbers, Index count) {
  Vector<T> sum = {};
  T rest = 0;
  Index n = 0;
  for (; n + kWidth<T> <= count; n += kWidth<T>) sum += load<T>(numbers + n) * T(0);
  for (; n < count; ++n) rest += numbers[n] * T(0);
  return horizontal_sum(sum) + rest;
}

/// Rows of weights that are mostly zeros, as those of sparse feedback are: what is in them alone, what
/// raises V and what lowers it apart. A row that is read whole costs as much as all neurons' state, and
/// comes from far away.
template <class T>
class SparseRows {
 public:
  SparseRows(const Population<T>& population, const Feedback<T>& feedback, Index threads)
      : neurons_(population.neurons),
        in_table_(feedback.in_table(population)),
        most_(population.neurons / kShare),
        room_(most_ + 1),
        lists_(population.rows),
        entries_(2 * population.rows * room_) {
    const Index bands = feedback.by_target ? (neurons_ + kBand - 1) / kBand : 0;
    nothing_ = Array<T>(bands, T(0));
    ThreadPool::shared().run(bands + in_table_, threads, [&](Index n) {
      if (n < bands)
        find_band(n, feedback.by_target, feedback.scale);
      else
        find(n - bands, population.weight + (n - bands) * neurons_);
    });
  }

  /// Whether a row is one; others are read whole.
  bool has(Index row) const { return row < Index(lists_.size()) && lists_[row].there; }

  /// Whether all rows from one on are.
  bool has_all(Index first) const {
    for (Index row = first; row < Index(lists_.size()); ++row)
      if (!lists_[row].there) return false;
    return true;
  }

  /// 0, or NaN where some weight that has been turned is not finite.
  T zero_if_finite() const { return native::zero_if_finite(nothing_.data(), nothing_.size()); }

  /// Calls with each neuron of a row and its weight: `lower` where that is negative, `raise` else.
  template <class Raise, class Lower>
  void each(Index row, Raise&& raise, Lower&& lower) const {
    const std::int32_t raising = lists_[row].ends[0], lowering = lists_[row].ends[1];
    const Entry *const up = entries(row, false), *const down = entries(row, true);
    for (Index n = 0; n < raising; ++n) raise(up[n].neuron, up[n].weight);
    for (Index n = 0; n < lowering; ++n) lower(down[n].neuron, down[n].weight);
  }

  /// The sum of what is called for each neuron of a row and its weight.
  template <class Call>
  double sum(Index row, Call&& call) const {
    return sum(entries(row, false), lists_[row].ends[0], call) +
           sum(entries(row, true), lists_[row].ends[1], call);
  }

  void prefetch(Index row) const {
    prefetch(entries(row, false), lists_[row].ends[0]);
    prefetch(entries(row, true), lists_[row].ends[1]);
  }

 private:
  struct Entry {
    std::uint32_t neuron;
    T weight;
  };

  struct Lists {
    std::int32_t ends[2];  // how many weights raise V, and how many lower it
    bool there;
  };

  Entry* entries(Index row, bool lowering) {
    return entries_.data() + (2 * row + lowering) * room_;
  }
  const Entry* entries(Index row, bool lowering) const {
    return entries_.data() + (2 * row + lowering) * room_;
  }

  /// By fours: additions wait for each other.
  template <class Call>
  static double sum(const Entry* own, Index count, Call&& call) {
    double sums[4] = {};
    Index n = 0;
    for (; n + 4 <= count; n += 4)
      for (int part = 0; part < 4; ++part)
        sums[part] += call(own[n + part].neuron, own[n + part].weight);
    for (; n < count; ++n) sums[0] += call(own[n].neuron, own[n].weight);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  static void prefetch(const Entry* own, Index count) {
    for (Index n = 0; n < count; n += 64 / sizeof(Entry)) __builtin_prefetch(own + n);
  }

  /// Which of some weights, no more than a band of them, are not 0: a bit for each.
  static std::uint64_t there(const T* weights, Index count) {
    constexpr unsigned kAll = (1u << kWidth<T>) - 1;
    const Vector<T> zero = {};
    std::uint64_t bits = 0;
    for (Index at = 0; at < count; at += kWidth<T>) {
      Vector<T> all = {};
      if (at + kWidth<T> <= count)
        all = load<T>(weights + at);
      else
        std::memcpy(&all, weights + at, (count - at) * sizeof(T));
      bits |= std::uint64_t(~(at_least(all, zero) & at_least(zero, all)) & kAll) << at;
    }
    return bits;
  }

  void append(Index row, Index neuron, T weight) {
    const bool lowers = weight < 0;
    std::int32_t& end = lists_[row].ends[lowers];
    entries(row, lowers)[end] = {std::uint32_t(neuron), weight};
    end = std::min(end + 1, std::int32_t(most_));  // of too many the last ones are lost
  }

  /// What there is in a row.
  void find(Index row, const T* weights) {
    Lists& own = lists_[row] = {};
    // a dense row is one by its first weights: nothing is written for it
    const Index some = std::min(neurons_, kBand);
    if (2 * __builtin_popcountll(there(weights, some)) > some) return;
    Index all = 0;
    for (Index at = 0; at < neurons_ && all <= most_; at += kBand) {
      std::uint64_t bits = there(weights + at, std::min(kBand, neurons_ - at));
      all += __builtin_popcountll(bits);
      for (; bits; bits &= bits - 1) {
        const Index neuron = at + __builtin_ctzll(bits);
        append(row, neuron, weights[neuron]);
      }
    }
    own.there = all <= most_;
  }

  /// What there is in the rows of a band of sources.
  void find_band(Index band, const T* by_target, const T* scale) {
    const Index first = band * kBand, width = std::min(kBand, neurons_ - first);
    std::fill_n(lists_.data() + in_table_ + first, width, Lists{});
    const auto from = [=](Index target) { return by_target + target * neurons_ + first; };
    // a dense band is one by its first targets
    const Index some = std::min<Index>(neurons_, 16);
    Index all = 0;
    for (Index target = 0; target < some; ++target)
      all += __builtin_popcountll(there(from(target), width));
    if (2 * all > some * width) return;
    Index found[kBand] = {};
    T nothing = 0;
    for (Index target = 0; target < neurons_; ++target) {
      const T *const weights = from(target), *const later = from(std::min(target + 8, neurons_ - 1));
      // rows are far from each other
      for (Index at = 0; at < width; at += kWidth<T>) __builtin_prefetch(later + at);
      for (std::uint64_t bits = there(weights, width); bits; bits &= bits - 1) {
        const int source = __builtin_ctzll(bits);
        const T weight = weights[source] * scale[target];
        nothing += weight * T(0);
        ++found[source];
        append(in_table_ + first + source, target, weight);
      }
    }
    for (Index n = 0; n < width; ++n) lists_[in_table_ + first + n].there = found[n] <= most_;
    nothing_[band] = nothing;
  }

  static constexpr Index kShare = 6;  // of the neurons at most one in so many
  static constexpr Index kBand = 64;  // weights that are looked at together
  Index neurons_, in_table_;
  Index most_;  // weights of a row
  Index room_;  // for these, and one that is too much
  Array<Lists> lists_;
  Array<Entry> entries_;  // (rows, raising and lowering, room)
  Array<T> nothing_;      // of the bands
};

/// Rows of weights in whole vectors, and behind the last one a row of zeros. Where the weights are in
/// whole vectors anyway they are read where they are.
template <class T>
class WholeRows {
 public:
  /// `sparse`: whose rows nobody reads here; null: all are read.
  WholeRows(const Population<T>& population, const Feedback<T>& feedback, const SparseRows<T>* sparse,
            Index threads)
      : rows_(population.rows),
        in_table_(feedback.in_table(population)),
        lanes_(padded_lanes<T>(population.neurons)),
        zeros_(lanes_, T(0)),
        table_(population.weight) {
    const Index neurons = population.neurons;
    if (neurons != lanes_) {
      own_ = Array<T>(in_table_ * lanes_);
      table_ = own_.data();
      for (Index row = 0; row < in_table_; ++row) {
        if (sparse && sparse->has(row)) continue;
        std::copy_n(population.weight + row * neurons, neurons, own_.data() + row * lanes_);
        pad(own_.data() + row * lanes_, neurons);
      }
    }
    if (!feedback.by_target || (sparse && sparse->has_all(in_table_))) return;
    turned_ = Array<T>(neurons * lanes_);
    prefer_large_pages(turned_.data(), turned_.size() * sizeof(T));
    transpose(feedback.by_target, neurons, neurons, threads, turned_.data(), lanes_, feedback.scale);
    for (Index row = 0; row < neurons; ++row) pad(turned_.data() + row * lanes_, neurons);
  }

  const T* operator[](Index row) const {
    if (row < in_table_) return table_ + row * lanes_;
    if (row < rows_ && turned_.size()) return turned_.data() + (row - in_table_) * lanes_;
    return zeros_.data();
  }
  const T* zeros() const { return zeros_.data(); }

  /// A row that will be read soon; rows that stay near anyway need no hint, which has its price.
  void prefetch(Index row) const {
    constexpr Index kNear = Index(1) << 19;  // bytes
    if ((in_table_ * lanes_ + turned_.size()) * Index(sizeof(T)) <= kNear) return;
    const T* const own = (*this)[row];
    for (Index at = 0; at < lanes_; at += kWidth<T>) __builtin_prefetch(own + at);
  }

  /// 0, or NaN where some weight that has been turned is not finite.
  T zero_if_finite() const { return native::zero_if_finite(turned_.data(), turned_.size()); }

 private:
  void pad(T* row, Index neurons) const { std::fill(row + neurons, row + lanes_, T(0)); }

  Index rows_, in_table_, lanes_;
  Array<T> zeros_, own_, turned_;
  const T* table_;
};

}  // namespace native
