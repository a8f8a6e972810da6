#include "kernels.h"

namespace native {

LAYER_FORWARD;

}  // namespace native
