// Which model this is: what calibrations and traces are bound to.
#pragma once

#include <string>

#include "engine/model/checkpoint.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"

namespace gatehouse {

// 16 hexadecimal digits over the sizes and choices of the configuration that routing depends on,
// and every tensor's name, type, extents and bytes. Of the routers all bytes count, of the other
// tensors 64 pieces spread over each, so that a file of 100 GB costs seconds: who trains or
// quantises a model changes some of them. No protection against someone who wants two models to
// look alike.
std::string HashModel(const ModelConfig& config, const TensorViews& views);

}  // namespace gatehouse
