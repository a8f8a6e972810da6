#include "kernels.h"

namespace native {

LINEAR_BACKWARD(2);
LINEAR_BACKWARD(3);
LINEAR_BACKWARD(4);

}  // namespace native
