#include "engine/comm/gloo_communicator.h"

#include <gloo/rendezvous/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using gloo::transport::UnboundBuffer;
using std::chrono::milliseconds;

// gloo's ranks are dense: a member's place among the members.
class GlooCommunicator final : public Communicator {
 public:
  // `context` is null where there is one member.
  GlooCommunicator(const GlooOptions& options, std::shared_ptr<gloo::Context> context)
      : options_(options), context_(std::move(context)) {}

  int rank() const override { return options_.rank; }
  int size() const override { return options_.membership.num_ranks; }
  CommStats stats() const override { return stats_; }

  absl::Status AllToAll(const AllToAllArgs& args) override {
    const size_t row_bytes = args.send.row_bytes;
    GATEHOUSE_CHECK(row_bytes == args.receive.row_bytes) << args.receive.row_bytes;
    const auto begin = std::chrono::steady_clock::now();
    sent_.resize(args.row_ids.size() * row_bytes);
    for (size_t i = 0; i < args.row_ids.size(); ++i) {
      std::memcpy(sent_.data() + i * row_bytes, args.send.row(args.row_ids[i]), row_bytes);
    }
    const bool is_dense = args.receive.stride_bytes == row_bytes;
    if (!is_dense) received_.resize(args.receive_begin[size()] * row_bytes);
    std::byte* const to = is_dense ? args.receive.data : received_.data();
    std::vector<Part> send, receive;
    for (int r = 0; r < size(); ++r) {
      send.push_back({sent_.data() + args.send_begin[r] * row_bytes,
                      (args.send_begin[r + 1] - args.send_begin[r]) * row_bytes});
      receive.push_back({to + args.receive_begin[r] * row_bytes,
                         (args.receive_begin[r + 1] - args.receive_begin[r]) * row_bytes});
    }
    stats_.move_seconds += SecondsSince(begin);
    GATEHOUSE_RETURN_IF_ERROR(Exchange(send, receive));
    for (int32_t i = 0; !is_dense && i < args.receive_begin[size()]; ++i) {
      std::memcpy(args.receive.row(i), received_.data() + i * row_bytes, row_bytes);
    }
    return absl::OkStatus();
  }

  absl::Status AllGather(const AllGatherArgs& args) override {
    std::vector<Part> send, receive;
    for (int r = 0; r < size(); ++r) {
      const bool is_member = options_.membership.has(r);
      send.push_back({args.send.data(), is_member ? args.send.size() : 0});
      receive.push_back({args.receive.data() + args.receive_begin[r],
                         static_cast<size_t>(args.receive_begin[r + 1] - args.receive_begin[r])});
    }
    return Exchange(send, receive);
  }

  absl::Status Barrier() override {
    std::byte mine{};
    std::vector<std::byte> theirs(size());
    std::vector<int64_t> begin{0};
    for (int r = 0; r < size(); ++r)
      begin.push_back(begin[r] + (options_.membership.has(r) ? 1 : 0));
    return AllGather({.send = {&mine, 1}, .receive = theirs, .receive_begin = begin});
  }

  void Lose(int rank) override {
    const MutexLock lock(mutex_);
    int none = -1;
    lost_rank_.compare_exchange_strong(none, rank);
    if (waits_in_ == nullptr) return;
    waits_in_->abortWaitRecv();
    waits_in_->abortWaitSend();
  }

 private:
  struct Part {
    const std::byte* data = nullptr;
    size_t num_bytes = 0;
  };
  using BufferPtr = std::unique_ptr<UnboundBuffer>;

  static double SecondsSince(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  absl::Status StatusOfLoss() const {
    return absl::UnavailableError(
        absl::StrFormat("rank %d lost in epoch %d", lost_rank_.load(), options_.membership.epoch));
  }

  // send[r] to rank r, receive[r] from it; nothing travels where there is nothing. All is posted
  // before anything is waited for, so that one who is lost holds up nobody else's rows. A buffer
  // for each peer: a wait that fails then says whose.
  absl::Status Exchange(const std::vector<Part>& send, const std::vector<Part>& receive) {
    if (lost_rank_.load() >= 0) return StatusOfLoss();
    const auto begin = std::chrono::steady_clock::now();
    const auto end = begin + options_.deadline;
    const uint64_t slot = ++num_calls_;
    const std::vector<int>& members = options_.membership.members;
    const auto num_members = static_cast<int>(members.size());
    std::vector<BufferPtr> sending(num_members), receiving(num_members);
    int peer = 0;
    try {
      for (peer = 0; peer < num_members; ++peer) {
        const int r = members[peer];
        if (r == rank()) continue;
        receiving[peer] = Post(receive[r]);
        if (receiving[peer] != nullptr) receiving[peer]->recv(peer, slot);
        sending[peer] = Post(send[r]);
        if (sending[peer] != nullptr) sending[peer]->send(peer, slot);
      }
      TakeOwn(send[rank()], receive[rank()]);
      for (peer = 0; peer < num_members; ++peer) {
        if (!Wait(receiving[peer].get(), end, /*receives=*/true)) return StatusOfLoss();
        if (!Wait(sending[peer].get(), end, /*receives=*/false)) return StatusOfLoss();
      }
    } catch (const std::exception&) {  // gloo's, of this peer's connection or of its deadline
      int none = -1;
      lost_rank_.compare_exchange_strong(none, members[peer]);
      return StatusOfLoss();
    }
    for (const int r : members) {
      if (r == rank()) continue;
      stats_.bytes_sent += static_cast<int64_t>(send[r].num_bytes);
      stats_.bytes_received += static_cast<int64_t>(receive[r].num_bytes);
    }
    // What TCP moves while nobody looks cannot be told from waiting for who has not come.
    stats_.wait_seconds += SecondsSince(begin);
    return absl::OkStatus();
  }

  BufferPtr Post(const Part& part) {
    if (part.num_bytes == 0) return nullptr;
    return context_->createUnboundBuffer(const_cast<std::byte*>(part.data), part.num_bytes);
  }

  void TakeOwn(const Part& sent, const Part& received) {
    GATEHOUSE_CHECK(sent.num_bytes == received.num_bytes)
        << sent.num_bytes << " bytes to itself, " << received.num_bytes << " expected";
    if (sent.num_bytes == 0) return;
    std::memcpy(const_cast<std::byte*>(received.data), sent.data, sent.num_bytes);
  }

  // False: Lose was called. Throws what gloo throws.
  bool Wait(UnboundBuffer* buffer, TimePoint end, bool receives) {
    if (buffer == nullptr) return true;
    {
      const MutexLock lock(mutex_);
      if (lost_rank_.load() >= 0) return false;
      waits_in_ = buffer;
    }
    // The buffer outlives the flag that points to it, also when the wait throws.
    struct Done {
      GlooCommunicator& comm;
      ~Done() {
        const MutexLock lock(comm.mutex_);
        comm.waits_in_ = nullptr;
      }
    } done{*this};
    // Zero would be gloo's own default.
    const auto left =
        std::max(milliseconds(1),
                 std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now()));
    return receives ? buffer->waitRecv(left) : buffer->waitSend(left);
  }

  const GlooOptions options_;
  const std::shared_ptr<gloo::Context> context_;
  CommStats stats_;
  uint64_t num_calls_ = 0;  // the same on all ranks
  std::vector<std::byte> sent_, received_;

  std::atomic<int> lost_rank_{-1};
  Mutex mutex_;
  UnboundBuffer* waits_in_ GATEHOUSE_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> ConnectGloo(const GlooOptions& options,
                                                          gloo::rendezvous::Store& store) {
  const std::vector<int>& members = options.membership.members;
  GATEHOUSE_CHECK(options.membership.has(options.rank)) << "rank " << options.rank;
  if (members.size() == 1) return std::make_unique<GlooCommunicator>(options, nullptr);
  const auto own = std::lower_bound(members.begin(), members.end(), options.rank) - members.begin();
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = options.address;
    std::shared_ptr<gloo::transport::Device> device =
        gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<gloo::rendezvous::Context>(static_cast<int>(own),
                                                               static_cast<int>(members.size()));
    context->setTimeout(std::chrono::duration_cast<milliseconds>(options.connect_deadline));
    context->connectFullMesh(store, device);
    return std::make_unique<GlooCommunicator>(options, std::move(context));
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrFormat(
        "rank %d of %d, epoch %d, at %s: %s", options.rank, options.membership.num_ranks,
        options.membership.epoch, options.address, error.what()));
  }
}

}  // namespace gatehouse
