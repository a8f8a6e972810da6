// Rows of the weight matrix as the group's event loop reads them: rows that are mostly zero as
// lists of non-zero weights, all other rows as full SIMD vectors.

#pragma once

#include "queue.h"

namespace native {

template <class T>
Index padded_lanes(Index neurons) {
  return (neurons + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
}

/// Return 0, or NaN if some of the numbers are not finite.
template <class T>
T zero_if_finite(const T* numbers, Index count) {
  Vector<T> sum = {};
  T remainder = 0;
  Index n = 0;
  for (; n + kWidth<T> <= count; n += kWidth<T>) sum += load<T>(numbers + n) * T(0);
  for (; n < count; ++n) remainder += numbers[n] * T(0);
  return horizontal_sum(sum) + remainder;
}

/// Rows of weights that are mostly zero, as with sparse feedback: lists of the non-zero weights,
/// the positive ones and the negative ones separately. Reading a dense row costs as much as
/// updating the state of all neurons, and often misses the cache.
template <class T>
class SparseRows {
 public:
  SparseRows(const Population<T>& population, const Feedback<T>& feedback, Index threads)
      : neurons_(population.neurons),
        in_table_(feedback.rows_in_table(population)),
        max_weights_(population.neurons / kMinSparsity),
        capacity_(max_weights_ + 1),
        list_begin_(feedback.list_begin),
        counts_(population.rows),
        entries_(list_begin_ ? list_begin_[population.rows] : 2 * population.rows * capacity_) {
    if (list_begin_) {
      ThreadPool::shared().run(population.rows, threads, [&](Index row) {
        split_list(row, population.weight, feedback.list_target);
      });
      return;
    }
    const Index bands = feedback.by_target ? (neurons_ + kBand - 1) / kBand : 0;
    finite_sums_ = Array<T>(bands, T(0));
    ThreadPool::shared().run(bands + in_table_, threads, [&](Index n) {
      if (n < bands)
        scan_band(n, feedback.by_target, feedback.scale);
      else
        scan_row(n - bands, population.weight + (n - bands) * neurons_);
    });
  }

  /// Return whether a row is stored as a list; other rows are dense.
  bool is_sparse(Index row) const { return row < Index(counts_.size()) && counts_[row].is_sparse; }

  /// Return whether all rows from `first` on are stored as lists.
  bool all_sparse_from(Index first) const {
    for (Index row = first; row < Index(counts_.size()); ++row)
      if (!counts_[row].is_sparse) return false;
    return true;
  }

  /// Return 0, or NaN if some weight of the separate matrix is not finite.
  T zero_if_finite() const {
    return native::zero_if_finite(finite_sums_.data(), finite_sums_.size());
  }

  /// Call `lower(neuron, weight)` for the negative weights of a row and `raise(neuron, weight)` for
  /// the positive ones.
  template <class Raise, class Lower>
  void for_each(Index row, Raise&& raise, Lower&& lower) const {
    const std::int32_t raising = counts_[row].by_sign[0], lowering = counts_[row].by_sign[1];
    const Entry *const positive = entries(row, false), *const negative = entries(row, true);
    for (Index n = 0; n < raising; ++n) raise(positive[n].neuron, positive[n].weight);
    for (Index n = 0; n < lowering; ++n) lower(negative[n].neuron, negative[n].weight);
  }

  /// Return the sum of call(neuron, weight) over a row.
  template <class Call>
  double sum(Index row, Call&& call) const {
    return sum(entries(row, false), counts_[row].by_sign[0], call) +
           sum(entries(row, true), counts_[row].by_sign[1], call);
  }

  void prefetch(Index row) const {
    prefetch(entries(row, false), counts_[row].by_sign[0]);
    prefetch(entries(row, true), counts_[row].by_sign[1]);
  }

 private:
  struct Entry {
    std::uint32_t neuron;
    T weight;
  };

  struct RowCounts {
    std::int32_t by_sign[2];  // number of positive weights, and of negative weights
    bool is_sparse;
  };

  /// Return the index of the first entry of a row with one sign.
  Index first_entry(Index row, bool lowering) const {
    if (list_begin_) return list_begin_[row] + (lowering ? counts_[row].by_sign[0] : 0);
    return (2 * row + lowering) * capacity_;
  }
  Entry* entries(Index row, bool lowering) { return entries_.data() + first_entry(row, lowering); }
  const Entry* entries(Index row, bool lowering) const {
    return entries_.data() + first_entry(row, lowering);
  }

  /// Copy the list of synapses of a row, those with positive weights first.
  void split_list(Index row, const T* weights, const std::int32_t* targets) {
    const Index first = list_begin_[row], end = list_begin_[row + 1];
    Index place[2] = {first, first};
    for (Index n = first; n < end; ++n) place[1] += !(weights[n] < 0);
    counts_[row] = {{std::int32_t(place[1] - first), std::int32_t(end - place[1])}, true};
    for (Index n = first; n < end; ++n)
      entries_[place[weights[n] < 0]++] = {std::uint32_t(targets[n]), weights[n]};
  }

  /// Sum with four accumulators: additions to a single accumulator would wait for each other.
  template <class Call>
  static double sum(const Entry* entries, Index count, Call&& call) {
    double sums[4] = {};
    Index n = 0;
    for (; n + 4 <= count; n += 4)
      for (int lane = 0; lane < 4; ++lane)
        sums[lane] += call(entries[n + lane].neuron, entries[n + lane].weight);
    for (; n < count; ++n) sums[0] += call(entries[n].neuron, entries[n].weight);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  static void prefetch(const Entry* entries, Index count) {
    for (Index n = 0; n < count; n += 64 / sizeof(Entry)) __builtin_prefetch(entries + n);
  }

  /// Return a bit mask of the non-zero weights, of at most kBand weights.
  static std::uint64_t nonzero_mask(const T* weights, Index count) {
    constexpr unsigned kAll = (1u << kWidth<T>) - 1;
    const Vector<T> zero = {};
    std::uint64_t bits = 0;
    for (Index first = 0; first < count; first += kWidth<T>) {
      Vector<T> values = {};
      if (first + kWidth<T> <= count)
        values = load<T>(weights + first);
      else
        std::memcpy(&values, weights + first, (count - first) * sizeof(T));
      bits |= std::uint64_t(~(at_least(values, zero) & at_least(zero, values)) & kAll) << first;
    }
    return bits;
  }

  void append(Index row, Index neuron, T weight) {
    const bool is_negative = weight < 0;
    std::int32_t& count = counts_[row].by_sign[is_negative];
    entries(row, is_negative)[count] = {std::uint32_t(neuron), weight};
    // Weights beyond the limit overwrite the last entry; the row is marked as dense in the end.
    count = std::min(count + 1, std::int32_t(max_weights_));
  }

  /// Scan a row of the table for non-zero weights.
  void scan_row(Index row, const T* weights) {
    RowCounts& counts = counts_[row] = {};
    // Most dense rows are recognised by their first weights, before anything is written.
    const Index sample_size = std::min(neurons_, kBand);
    if (2 * __builtin_popcountll(nonzero_mask(weights, sample_size)) > sample_size) return;
    Index total = 0;
    for (Index first = 0; first < neurons_ && total <= max_weights_; first += kBand) {
      std::uint64_t bits = nonzero_mask(weights + first, std::min(kBand, neurons_ - first));
      total += __builtin_popcountll(bits);
      for (; bits; bits &= bits - 1) {
        const Index neuron = first + __builtin_ctzll(bits);
        append(row, neuron, weights[neuron]);
      }
    }
    counts.is_sparse = total <= max_weights_;
  }

  /// Scan the columns of a band of presynaptic neurons in the separate matrix of immediate weights.
  void scan_band(Index band, const T* by_target, const T* scale) {
    const Index first = band * kBand, width = std::min(kBand, neurons_ - first);
    std::fill_n(counts_.data() + in_table_ + first, width, RowCounts{});
    const auto row_at = [=](Index target) { return by_target + target * neurons_ + first; };
    // Most dense bands are recognised by their first targets.
    const Index sampled_targets = std::min<Index>(neurons_, 16);
    Index total = 0;
    for (Index target = 0; target < sampled_targets; ++target)
      total += __builtin_popcountll(nonzero_mask(row_at(target), width));
    if (2 * total > sampled_targets * width) return;
    Index source_counts[kBand] = {};
    T finite_sum = 0;
    for (Index target = 0; target < neurons_; ++target) {
      const T *const weights = row_at(target), *const next =
                                                   row_at(std::min(target + 8, neurons_ - 1));
      // Prefetch: consecutive rows are far apart in memory.
      for (Index lane = 0; lane < width; lane += kWidth<T>) __builtin_prefetch(next + lane);
      for (std::uint64_t bits = nonzero_mask(weights, width); bits; bits &= bits - 1) {
        const int source = __builtin_ctzll(bits);
        const T weight = weights[source] * scale[target];
        finite_sum += weight * T(0);
        ++source_counts[source];
        append(in_table_ + first + source, target, weight);
      }
    }
    for (Index n = 0; n < width; ++n)
      counts_[in_table_ + first + n].is_sparse = source_counts[n] <= max_weights_;
    finite_sums_[band] = finite_sum;
  }

  // a sparse row has at most neurons / kMinSparsity weights
  static constexpr Index kMinSparsity = 6;
  static constexpr Index kBand = 64;  // weights that are scanned together
  Index neurons_, in_table_;
  Index max_weights_;  // maximum number of weights in a sparse row
  Index capacity_;     // entries per list: max_weights_ and one for overflow
  const std::int32_t* list_begin_;  // see `Feedback`
  Array<RowCounts> counts_;
  Array<Entry> entries_;  // (rows, sign of the weight, capacity_), or one for each synapse
  Array<T> finite_sums_;  // of each band: 0, or NaN if a weight is not finite
};

/// Rows of weights padded to full vectors, and a row of zeros. If the number of neurons is a
/// multiple of the vector's width, the rows are read in place.
template <class T>
class DenseRows {
 public:
  /// `sparse`: its rows are never read from this object and are not copied; null: no such rows.
  DenseRows(const Population<T>& population, const Feedback<T>& feedback,
            const SparseRows<T>* sparse, Index threads)
      : rows_(population.rows),
        in_table_(feedback.rows_in_table(population)),
        lanes_(padded_lanes<T>(population.neurons)),
        zeros_(lanes_, T(0)),
        table_(population.weight) {
    const Index neurons = population.neurons;
    if (feedback.list_begin) return;  // all rows are sparse
    if (neurons != lanes_) {
      padded_ = Array<T>(in_table_ * lanes_);
      table_ = padded_.data();
      for (Index row = 0; row < in_table_; ++row) {
        if (sparse && sparse->is_sparse(row)) continue;
        std::copy_n(population.weight + row * neurons, neurons, padded_.data() + row * lanes_);
        pad(padded_.data() + row * lanes_, neurons);
      }
    }
    if (!feedback.by_target || (sparse && sparse->all_sparse_from(in_table_))) return;
    transposed_ = Array<T>(neurons * lanes_);
    prefer_large_pages(transposed_.data(), transposed_.size() * sizeof(T));
    transpose(feedback.by_target, neurons, neurons, threads, transposed_.data(), lanes_,
              feedback.scale);
    for (Index row = 0; row < neurons; ++row) pad(transposed_.data() + row * lanes_, neurons);
  }

  const T* operator[](Index row) const {
    if (row < in_table_) return table_ + row * lanes_;
    if (row < rows_ && transposed_.size()) return transposed_.data() + (row - in_table_) * lanes_;
    return zeros_.data();
  }
  const T* zeros() const { return zeros_.data(); }

  /// Prefetch a row that will be read soon. Small tables stay in the cache, where prefetching only
  /// costs time.
  void prefetch(Index row) const {
    constexpr Index kCacheBytes = Index(1) << 19;
    if ((in_table_ * lanes_ + transposed_.size()) * Index(sizeof(T)) <= kCacheBytes) return;
    const T* const weights = (*this)[row];
    for (Index lane = 0; lane < lanes_; lane += kWidth<T>) __builtin_prefetch(weights + lane);
  }

  /// Return 0, or NaN if some transposed weight is not finite.
  T zero_if_finite() const {
    return native::zero_if_finite(transposed_.data(), transposed_.size());
  }

 private:
  void pad(T* row, Index neurons) const { std::fill(row + neurons, row + lanes_, T(0)); }

  Index rows_, in_table_, lanes_;
  Array<T> zeros_, padded_, transposed_;
  const T* table_;
};

}  // namespace native
