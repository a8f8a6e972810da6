// Kernels that are slow to compile. Each is instantiated in a file of its own (layer_forward.cc,
// layer_backward.cc, and so on) and only declared elsewhere, so that compilers can work in parallel.

#pragma once

#include "group.h"
#include "layer_backward.h"
#include "layer_forward.h"
#include "linear_backward.h"
#include "linear_forward.h"

#define LAYER_FORWARD                                                             \
  template void layer_forward(const Population<NUMBER>&, const Options&,          \
                              const SortedArrivals<NUMBER>&, const Spikes<NUMBER>&, \
                              Scratch<NUMBER>*)
#define LAYER_BACKWARD                                                               \
  template void layer_backward(const Population<NUMBER>&, const Options&,            \
                               const SortedArrivals<NUMBER>&,                        \
                               const ForwardSpikes<NUMBER>&, const Gradients<NUMBER>&, Index, \
                               Scratch<NUMBER>*)
#define GROUP_FORWARD                                                                   \
  template NUMBER group_forward(const Population<NUMBER>&, const Options&,              \
                                const Feedback<NUMBER>&, const SortedArrivals<NUMBER>&, \
                                const Spikes<NUMBER>&, const SpikeTrain<NUMBER>&,       \
                                const EventLog<NUMBER>&)
#define GROUP_BACKWARD                                                                           \
  template void group_backward(                                                                  \
      const Population<NUMBER>&, const Options&, const Feedback<NUMBER>&,                        \
      const SortedArrivals<NUMBER>&, const Spikes<NUMBER>&, const SpikeTrain<NUMBER>&,           \
      const EventLog<NUMBER>&, const Cotangents<NUMBER>&, const Gradients<NUMBER>&, NUMBER*)
#define LINEAR_FORWARD(D)                                                                    \
  template void linear_forward<NUMBER, D>(const Population<NUMBER>&, const NUMBER*,         \
                                          const Options&, const SortedArrivals<NUMBER>&,    \
                                          const LinearSpikes<NUMBER>&)
#define LINEAR_BACKWARD(D)                                                                   \
  template void linear_backward<NUMBER, D>(const Population<NUMBER>&, const NUMBER*,        \
                                           const Options&, const SortedArrivals<NUMBER>&,   \
                                           const LinearForwardSpikes<NUMBER>&,              \
                                           const LinearGradients<NUMBER>&)

namespace native {

extern LAYER_FORWARD;
extern LAYER_BACKWARD;
extern GROUP_FORWARD;
extern GROUP_BACKWARD;
extern LINEAR_FORWARD(2);
extern LINEAR_FORWARD(3);
extern LINEAR_FORWARD(4);
extern LINEAR_BACKWARD(2);
extern LINEAR_BACKWARD(3);
extern LINEAR_BACKWARD(4);

}  // namespace native
