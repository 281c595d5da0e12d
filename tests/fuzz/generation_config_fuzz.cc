// generation_config.json: its defaults must be such as ValidateRequest takes from a client.
#include "engine/model/generation_config.h"
#include "engine/request/request.h"
#include "kernels/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gatehouse;
  ModelConfig model;
  model.vocab_size = 300;
  model.eos_token_ids = {7};
  const auto config = ParseGenerationConfig({reinterpret_cast<const char*>(data), size},
                                            "generation_config.json", model);
  if (!config.ok()) return 0;
  for (const int32_t id : config->eos_token_ids) {
    GATEHOUSE_CHECK(id >= 0 && id < model.vocab_size) << id;
  }
  Request request;
  request.prompt_ids = {1};
  request.sampling = config->sampling;
  const RequestLimits limits{.vocab_size = model.vocab_size,
                             .max_context = 100,
                             .default_max_new_tokens = config->max_new_tokens};
  const absl::Status status = ValidateRequest(limits, request);
  GATEHOUSE_CHECK(status.ok()) << status;
  return 0;
}
