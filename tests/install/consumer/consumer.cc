// consumer TARGET PROMPT: prints the model's family, a greedy answer, and what a wrong request is
// told.
#include <gatehouse/client/admin_client.h>
#include <gatehouse/client/gatehouse_client.h>
#include <gatehouse/client/rpc_error.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto client = gatehouse::GatehouseClient::Connect({.target = argv[1]});
  if (!client.ok()) return 1;
  const auto model = (*client)->GetModelInfo({}, {});
  if (!model.ok()) return 1;
  std::cout << model->family() << "\n";

  gatehouse::v1::GenerateRequest request;
  request.set_text(argv[2]);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_new_tokens(8);
  request.mutable_stop()->set_ignore_eos(true);
  const absl::Status done =
      (*client)->Generate(request, {}, [](const gatehouse::v1::GenerateResponse& event) {
        std::cout << event.delta().text();
        return true;
      });
  if (!done.ok()) return 1;

  request.mutable_sampling()->set_top_p(7);
  const absl::Status refused = (*client)->Generate(request, {})->Finish();
  std::cout << "\n" << gatehouse::DecodeError(refused).violations.at(0).field << "\n";
  return gatehouse::AdminClient::Connect({.target = ""}).ok() ? 1 : 0;
}
