// The certificates of one gRPC listener: read from PEM files, checked, and exchanged while the
// server runs. New connections get the new ones; those that are open keep theirs.
//
//   absl::StatusOr<TlsMaterial> material = LoadTls(files);
//   TlsCertificates certificates(*std::move(material));
//   builder.AddListeningPort(address, certificates.ServerCredentials(), &port);
//   certificates.Set(*LoadTls(files));                        // any thread
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/base/mutex.h"
#include "server/server_config.h"

namespace gatehouse {

struct TlsMaterial {
  std::string certificate_chain;   // PEM
  std::string key;                 // PEM
  std::string client_ca;           // PEM; empty: clients need no certificate
  double expiry_unix_seconds = 0;  // of the certificate that expires first
};

// FAILED_PRECONDITION naming the file that cannot be read or is not what it must be: PEM, the key
// without a password and of the first certificate of the chain.
absl::StatusOr<TlsMaterial> LoadTls(const TlsFiles& files);

// Owner: the server; outlives the grpc::Server that listens with it. Thread-safe.
class TlsCertificates {
 public:
  explicit TlsCertificates(TlsMaterial material) : material_(std::move(material)) {}
  TlsCertificates(const TlsCertificates&) = delete;
  TlsCertificates& operator=(const TlsCertificates&) = delete;

  // Whether clients need a certificate is settled by the first material.
  std::shared_ptr<grpc::ServerCredentials> ServerCredentials();
  void Set(TlsMaterial material) GATEHOUSE_EXCLUDES(mutex_);

 private:
  grpc_ssl_certificate_config_reload_status Fetch(grpc_ssl_server_certificate_config** config)
      GATEHOUSE_EXCLUDES(mutex_);

  Mutex mutex_;
  TlsMaterial material_ GATEHOUSE_GUARDED_BY(mutex_);
  bool is_new_ GATEHOUSE_GUARDED_BY(mutex_) = true;  // to gRPC, which asks at each handshake
};

}  // namespace gatehouse
