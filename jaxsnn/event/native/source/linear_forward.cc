#include "kernels.h"

namespace native {

LINEAR_FORWARD(2);
LINEAR_FORWARD(3);
LINEAR_FORWARD(4);

}  // namespace native
