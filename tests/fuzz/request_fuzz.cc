// What a client may send, as the bytes of a message: first byte which message, then the message.
// A request that passes is sampled with for a few tokens; a refusal must convert to a status.
#include <memory>

#include "engine/sampling/sampling_state.h"
#include "kernels/base/check.h"
#include "server/convert.h"
#include "server/grpc_status.h"
#include "tests/testing/fake_engine.h"

namespace gatehouse {
namespace {

class IgnoringObserver final : public StepObserver {
 public:
  void OnStep(const StepStats&) override {}
  void OnToken(double) override {}
  void OnFirstToken(double) override {}
  void OnRequestEnd(const RequestStats&) override {}
};

const Engine& TheEngine() {
  static SteadyClock clock;
  static IgnoringObserver observer;
  static FakeEngine engine({.max_context = 100}, clock, observer);
  return engine;
}

void CheckRefusal(const absl::Status& status) {
  const grpc::Status sent = ToGrpcStatus(status);
  GATEHOUSE_CHECK(!sent.ok());
  GATEHOUSE_CHECK(sent.error_message().size() < 1024) << sent.error_message().size();
}

void CheckGenerate(const v1::GenerateRequest& message) {
  const Engine& engine = TheEngine();
  absl::StatusOr<Request> request = ToRequest(message, TenantPolicy(), RoutingTable(), engine);
  if (!request.ok()) return CheckRefusal(request.status());
  const absl::Status status = ValidateRequest(engine.limits(), *request);
  if (!status.ok()) return CheckRefusal(status);
  const int32_t vocab_size = engine.limits().vocab_size;
  SamplingState sampling(std::make_shared<const Request>(*std::move(request)), /*seed=*/1,
                         engine.model().eos_token_ids);
  for (int32_t token_id = 0; token_id < 4; ++token_id) {
    const RowSampling row = sampling.Next();
    GATEHOUSE_CHECK(row.temperature >= 0 && row.repetition_penalty > 0);
    for (const int32_t id : row.repeated_ids) GATEHOUSE_CHECK(id >= 0 && id < vocab_size);
    for (const auto& [id, bias] : row.bias) GATEHOUSE_CHECK(id >= 0 && id < vocab_size);
    for (const int32_t id : row.allowed_ids) GATEHOUSE_CHECK(id >= 0 && id < vocab_size);
    sampling.Append(token_id);
  }
}

template <typename Message, typename Answer>
void CheckAnswer(const void* data, int size, Answer answer) {
  Message message;
  if (!message.ParseFromArray(data, size)) return;
  const auto response = answer(message, TheEngine());
  if (!response.ok()) return CheckRefusal(response.status());
  GATEHOUSE_CHECK(!response->SerializeAsString().empty() || response->ByteSizeLong() == 0);
}

}  // namespace
}  // namespace gatehouse

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gatehouse;
  if (size == 0) return 0;
  const int message_size = static_cast<int>(size - 1);
  switch (data[0] % 3) {
    case 0: {
      v1::GenerateRequest message;
      if (message.ParseFromArray(data + 1, message_size)) CheckGenerate(message);
      break;
    }
    case 1:
      CheckAnswer<v1::TokenizeRequest>(data + 1, message_size, Tokenize);
      break;
    default:
      CheckAnswer<v1::DetokenizeRequest>(data + 1, message_size, Detokenize);
  }
  return 0;
}
