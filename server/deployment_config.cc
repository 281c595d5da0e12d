#include "server/deployment_config.h"

#include <string>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

Option RoleOption() {
  return {"role", "server|worker",
          "worker: a rank of another server's deployment, without listeners of its own",
          [](const std::string& text, ServerConfig& config) -> Expected {
            if (text != "server" && text != "worker") return "server or worker";
            config.deployment.is_worker = text == "worker";
            return {};
          },
          [](const ServerConfig& config) {
            return std::string(config.deployment.is_worker ? "worker" : "server");
          }};
}

// Of both roles: what crosses a network is between ranks that know each other.
absl::Status ValidateDeploymentNetwork(const ServerConfig& config) {
  const DeploymentOptions& deployment = config.deployment;
  if (!deployment.ca.empty() && !config.tls.enabled()) {
    return absl::InvalidArgumentError("--deployment-ca needs --tls-cert and --tls-key");
  }
  const bool is_worker = deployment.is_worker;
  const std::string& address = is_worker ? deployment.join : deployment.listen;
  const char* const flag = is_worker ? "--join" : "--worker-listen";
  if (IsLoopback(address)) return absl::OkStatus();
  if (IsLoopback(deployment.address + ":0")) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s %s is not a loopback address: give --worker-address, this host's address as other "
        "ranks reach it",
        flag, address));
  }
  const bool known = !deployment.ca.empty() || !deployment.token_file.empty();
  if (known || config.insecure) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s %s is not a loopback address: give --deployment-ca with --tls-cert and --tls-key, or "
      "--deployment-token-file, or --insecure to let anybody join",
      flag, address));
}

}  // namespace

#define GATEHOUSE_FIELD(member) \
  [](ServerConfig & config) -> auto& { return config.member; }

void AddDeploymentOptions(std::vector<Option>& options) {
  options.push_back(RoleOption());
  options.push_back(Whole<int>("workers", "ranks in other processes, waited for at the start",
                               {0, 63}, GATEHOUSE_FIELD(deployment.num_workers)));
  options.push_back(
      Address("worker-listen", "where workers join", false, GATEHOUSE_FIELD(deployment.listen)));
  options.push_back(Address("join", "a worker's: the --worker-listen of its server", true,
                            GATEHOUSE_FIELD(deployment.join)));
  options.push_back(Text("worker-address", "IP", "this host's, where the other ranks reach it",
                         GATEHOUSE_FIELD(deployment.address)));
  options.push_back(Text("deployment-token-file", "FILE",
                         "a token that all ranks of the deployment know",
                         GATEHOUSE_FIELD(deployment.token_file)));
  options.push_back(Text("deployment-ca", "FILE",
                         "PEM authority that signed the --tls-cert of all ranks",
                         GATEHOUSE_FIELD(deployment.ca)));
}

#undef GATEHOUSE_FIELD

absl::Status ValidateDeployment(const ServerConfig& config) {
  const DeploymentOptions& deployment = config.deployment;
  if (!deployment.is_worker && !deployment.join.empty()) {
    return absl::InvalidArgumentError("--join is a worker's: give --role worker");
  }
  if (deployment.is_worker && deployment.join.empty()) {
    return absl::InvalidArgumentError(
        "--join is missing: expected the --worker-listen of the deployment's server");
  }
  if (deployment.is_worker && deployment.num_workers > 0) {
    return absl::InvalidArgumentError("--workers is the server's, not a worker's");
  }
  if (!deployment.is_worker && deployment.num_workers == 0) return absl::OkStatus();
  if (config.backend.num_ranks > 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--ranks %d: each process of a deployment with --workers is one rank",
                        config.backend.num_ranks));
  }
  return ValidateDeploymentNetwork(config);
}

}  // namespace gatehouse
