#include "server/tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/small_file.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxPemBytes = size_t{1} << 20;

struct Freed {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Certificate = std::unique_ptr<X509, Freed>;

absl::Status Unusable(const std::string& file, const std::string& problem) {
  ERR_clear_error();
  return absl::FailedPreconditionError(absl::StrFormat("%s: %s", file, problem));
}

std::unique_ptr<BIO, Freed> Reader(const std::string& pem) {
  return std::unique_ptr<BIO, Freed>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// All certificates of `pem`, in its order; none when there is anything else.
std::vector<Certificate> ReadCertificates(const std::string& pem) {
  const auto reader = Reader(pem);
  std::vector<Certificate> certificates;
  while (Certificate certificate{PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr)}) {
    certificates.push_back(std::move(certificate));
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!at_end) certificates.clear();
  return certificates;
}

double ExpiryOf(const X509& certificate) {
  std::tm end{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(&certificate), &end) != 1) return 0;
  return static_cast<double>(timegm(&end));
}

int NoPassword(char*, int, int, void*) { return -1; }  // the default asks the terminal

// gRPC's wrapper of its core has no way to exchange certificates; the core itself has one.
class ExchangeableCredentials final : public grpc::ServerCredentials {
 public:
  explicit ExchangeableCredentials(grpc_server_credentials* credentials)
      : credentials_(credentials) {}
  ~ExchangeableCredentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* const credentials_;
};

}  // namespace

absl::StatusOr<TlsMaterial> LoadTls(const TlsFiles& files) {
  TlsMaterial material;
  GATEHOUSE_ASSIGN_OR_RETURN(material.certificate_chain,
                             ReadSmallFile(files.certificate, kMaxPemBytes));
  GATEHOUSE_ASSIGN_OR_RETURN(material.key, ReadSmallFile(files.key, kMaxPemBytes));
  const std::vector<Certificate> chain = ReadCertificates(material.certificate_chain);
  if (chain.empty()) return Unusable(files.certificate, "expected certificates as PEM");
  const std::unique_ptr<EVP_PKEY, Freed> key(
      PEM_read_bio_PrivateKey(Reader(material.key).get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) return Unusable(files.key, "expected a key as PEM, without a password");
  if (X509_check_private_key(chain.front().get(), key.get()) != 1) {
    return Unusable(files.key, absl::StrFormat("not the key of the first certificate of %s",
                                               files.certificate));
  }
  material.expiry_unix_seconds = std::numeric_limits<double>::max();
  for (const Certificate& certificate : chain) {
    material.expiry_unix_seconds = std::min(material.expiry_unix_seconds, ExpiryOf(*certificate));
  }
  if (files.client_ca.empty()) return material;
  GATEHOUSE_ASSIGN_OR_RETURN(material.client_ca, ReadSmallFile(files.client_ca, kMaxPemBytes));
  if (ReadCertificates(material.client_ca).empty()) {
    return Unusable(files.client_ca, "expected certificates as PEM");
  }
  return material;
}

std::shared_ptr<grpc::ServerCredentials> TlsCertificates::ServerCredentials() {
  bool must_be_signed = false;
  {
    const MutexLock lock(mutex_);
    must_be_signed = !material_.client_ca.empty();
    is_new_ = true;  // to these credentials, whatever others before have fetched
  }
  grpc_ssl_server_credentials_options* options =
      grpc_ssl_server_credentials_create_options_using_config_fetcher(
          must_be_signed ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                         : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
          [](void* self, grpc_ssl_server_certificate_config** config) {
            return static_cast<TlsCertificates*>(self)->Fetch(config);
          },
          this);
  return std::make_shared<ExchangeableCredentials>(
      grpc_ssl_server_credentials_create_with_options(options));
}

void TlsCertificates::Set(TlsMaterial material) {
  const MutexLock lock(mutex_);
  material_ = std::move(material);
  is_new_ = true;
}

grpc_ssl_certificate_config_reload_status TlsCertificates::Fetch(
    grpc_ssl_server_certificate_config** config) {
  const MutexLock lock(mutex_);
  if (!is_new_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  is_new_ = false;
  const grpc_ssl_pem_key_cert_pair pair = {.private_key = material_.key.c_str(),
                                           .cert_chain = material_.certificate_chain.c_str()};
  // gRPC's core insists on an authority. Our own certificate does: nobody is asked to show one.
  const std::string& client_ca =
      material_.client_ca.empty() ? material_.certificate_chain : material_.client_ca;
  *config = grpc_ssl_server_certificate_config_create(client_ca.c_str(), &pair, 1);
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

}  // namespace gatehouse
