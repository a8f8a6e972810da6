#include "kernels.h"

namespace native {

LAYER_BACKWARD;

}  // namespace native
