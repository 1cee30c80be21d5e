// The worker service over a loopback connection.
#include "engine/server/worker_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proto/arena_message.h"

namespace flux::server {
namespace {

using ::testing::HasSubstr;

// Only a failing test waits for it.
constexpr std::chrono::seconds kPatience(30);
const absl::Duration kLong = absl::FromChrono(kPatience);

class FakeSink : public WorkerStreamSink {
 public:
  void OnOpen(StreamId stream, std::string peer) override {
    std::unique_lock lock(mutex_);
    opened_[stream] = std::move(peer);
    last_ = stream;
    changed_.notify_all();
  }
  bool OnMessage(StreamId stream, std::unique_ptr<v1::ConnectRequest> message) override {
    std::unique_lock lock(mutex_);
    messages_[stream].push_back(std::move(*message));
    ++count_;
    changed_.notify_all();
    return !full_;
  }
  void OnClosed(StreamId stream) override {
    std::unique_lock lock(mutex_);
    ++closed_[stream];
    changed_.notify_all();
  }

  // The stream opened last.
  StreamId Opened() {
    std::unique_lock lock(mutex_);
    const auto opened = [this] { return last_ != 0; };
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, opened));
    return last_;
  }
  void SetFull(bool full) {
    std::unique_lock lock(mutex_);
    full_ = full;
  }
  bool AwaitMessages(size_t count) {
    std::unique_lock lock(mutex_);
    const auto came = [this, count] { return count_ >= count; };
    return changed_.wait_for(lock, kPatience, came);
  }
  size_t count() {
    std::unique_lock lock(mutex_);
    return count_;
  }
  std::vector<v1::ConnectRequest> Messages(StreamId stream) {
    std::unique_lock lock(mutex_);
    return messages_[stream];
  }
  int AwaitClosed(StreamId stream) {
    std::unique_lock lock(mutex_);
    const auto closed = [this, stream] { return closed_.contains(stream); };
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, closed));
    return closed_[stream];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<StreamId, std::string> opened_;
  StreamId last_ = 0;
  std::map<StreamId, std::vector<v1::ConnectRequest>> messages_;
  std::map<StreamId, int> closed_;
  size_t count_ = 0;
  bool full_ = false;
};

// A worker's end of a stream.
class Peer {
 public:
  explicit Peer(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::WorkerService::NewStub(channel)), stream_(stub_->Connect(&context_)) {}
  ~Peer() {
    if (!finished_) {
      context_.TryCancel();
      static_cast<void>(Finish());
    }
  }

  bool Write(const v1::ConnectRequest& message) { return stream_->Write(message); }
  bool Hello() {
    v1::ConnectRequest message;
    message.mutable_hello()->set_worker_id("w");
    return Write(message);
  }
  bool Read(v1::ConnectResponse* message) { return stream_->Read(message); }
  void WritesDone() { stream_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }
  // What is left to read, and the status.
  grpc::Status Finish(std::vector<v1::ConnectResponse>* rest = nullptr) {
    finished_ = true;
    v1::ConnectResponse message;
    while (stream_->Read(&message)) {
      if (rest != nullptr) rest->push_back(message);
    }
    return stream_->Finish();
  }

 private:
  bool finished_ = false;
  grpc::ClientContext context_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>> stream_;
};

class WorkerServiceTest : public ::testing::Test {
 protected:
  void Start(WorkerServiceOptions options = {}, int receive_bytes_max = 4 << 20) {
    service_ = std::make_unique<WorkerService>(&sink_, options);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(receive_bytes_max);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port),
                                         grpc::InsecureChannelCredentials(), arguments);
  }
  void TearDown() override {
    if (service_ == nullptr) return;
    service_->Shutdown(absl::UnavailableError("test over"));
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    service_.reset();
  }
  static ArenaPtr<v1::ConnectResponse> Acks(size_t count, size_t detail_bytes = 0) {
    auto message = MakeOnArena<v1::ConnectResponse>();
    for (size_t i = 0; i < count; ++i) {
      message->add_acks()->set_detail(std::string(detail_bytes, 'x'));
    }
    return message;
  }

  FakeSink sink_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(WorkerServiceTest, PassesMessagesBothWaysInOrder) {
  Start();
  Peer peer(channel_);
  ASSERT_TRUE(peer.Hello());
  for (uint32_t i = 1; i <= 100; ++i) {
    v1::ConnectRequest message;
    message.set_credit(i);
    ASSERT_TRUE(peer.Write(message));
  }
  ASSERT_TRUE(sink_.AwaitMessages(101));
  const StreamId stream = sink_.Opened();
  const auto messages = sink_.Messages(stream);
  EXPECT_TRUE(messages[0].has_hello());
  for (uint32_t i = 1; i <= 100; ++i) EXPECT_EQ(messages[i].credit(), i);

  for (uint32_t i = 0; i < 1000; ++i) {
    auto message = MakeOnArena<v1::ConnectResponse>();
    message->add_tasks()->set_attempt(i);
    if (i == 0) message->mutable_welcome()->set_incarnation(9);
    service_->Send(stream, std::move(message));
  }
  std::vector<uint32_t> attempts;
  v1::ConnectResponse response;
  size_t responses = 0;
  while (attempts.size() < 1000 && peer.Read(&response)) {
    if (responses++ == 0) {
      EXPECT_EQ(response.welcome().incarnation(), 9u);
    }
    for (const v1::Task& task : response.tasks()) attempts.push_back(task.attempt());
  }
  ASSERT_EQ(attempts.size(), 1000u);
  for (uint32_t i = 0; i < 1000; ++i) EXPECT_EQ(attempts[i], i);
}

TEST_F(WorkerServiceTest, MergesWhatIsSentWhileAWriteIsInFlight) {
  WorkerServiceOptions options;
  options.merged_message_bytes_max = 1 << 20;
  Start(options);
  Peer peer(channel_);
  ASSERT_TRUE(peer.Hello());
  ASSERT_TRUE(sink_.AwaitMessages(1));
  const StreamId stream = sink_.Opened();
  // More than the flow control window holds: the write cannot end before the peer reads.
  service_->Send(stream, Acks(1, 8 << 20));
  constexpr size_t kSmall = 5'000;
  for (size_t i = 0; i < kSmall; ++i) {
    auto message = Acks(1, 100);
    message->mutable_acks(0)->mutable_token()->set_delivery(i);
    message->add_cancels()->set_reason("r");
    message->add_tasks()->set_name("t");
    message->set_ping(i + 1);
    message->set_goodbye(i + 1 == kSmall);
    service_->Send(stream, std::move(message));
  }
  service_->Close(stream, absl::OkStatus());
  std::vector<v1::ConnectResponse> messages;
  EXPECT_TRUE(peer.Finish(&messages).ok());
  size_t acks = 0, cancels = 0, tasks = 0;
  for (size_t i = 1; i < messages.size(); ++i) {
    for (const v1::ResultAck& ack : messages[i].acks()) EXPECT_EQ(ack.token().delivery(), acks++);
    cancels += static_cast<size_t>(messages[i].cancels_size());
    tasks += static_cast<size_t>(messages[i].tasks_size());
  }
  EXPECT_EQ(acks, kSmall);
  EXPECT_EQ(cancels, kSmall);
  EXPECT_EQ(tasks, kSmall);
  EXPECT_LT(messages.size(), 20u);
  EXPECT_EQ(messages.back().ping(), kSmall);
  EXPECT_TRUE(messages.back().goodbye());
}

TEST_F(WorkerServiceTest, APeerThatDoesNotReadIsClosedAtTheLimit) {
  WorkerServiceOptions options;
  options.outgoing_bytes_max = 4 << 20;
  Start(options);
  Peer peer(channel_);
  ASSERT_TRUE(peer.Hello());
  ASSERT_TRUE(sink_.AwaitMessages(1));
  const StreamId stream = sink_.Opened();
  service_->Send(stream, Acks(1, 8 << 20));
  for (int i = 0; i < 5; ++i) service_->Send(stream, Acks(1, 1 << 20));
  std::vector<v1::ConnectResponse> messages;
  const grpc::Status status = peer.Finish(&messages);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("does not read: over 4194304 bytes"));
  EXPECT_LE(messages.size(), 1u);  // what waited is dropped
  EXPECT_EQ(sink_.AwaitClosed(stream), 1);
}

TEST_F(WorkerServiceTest, APeerThatNeverReadsIsCutOffAfterTheLinger) {
  WorkerServiceOptions options;
  options.linger = absl::Milliseconds(50);
  Start(options);
  Peer peer(channel_);
  ASSERT_TRUE(peer.Hello());
  ASSERT_TRUE(sink_.AwaitMessages(1));
  const StreamId stream = sink_.Opened();
  service_->Send(stream, Acks(1, 8 << 20));
  service_->Close(stream, absl::AbortedError("over"));
  EXPECT_EQ(sink_.AwaitClosed(stream), 1);  // though nothing was read
  EXPECT_FALSE(peer.Finish().ok());
}

TEST_F(WorkerServiceTest, CloseComesAfterWhatWasSent) {
  Start();
  Peer peer(channel_);
  ASSERT_TRUE(peer.Hello());
  ASSERT_TRUE(sink_.AwaitMessages(1));
  const StreamId stream = sink_.Opened();
  for (int i = 0; i < 100; ++i) service_->Send(stream, Acks(1, 1000));
  service_->Close(stream, absl::AbortedError("a newer stream"));
  service_->Close(stream, absl::InternalError("only the first counts"));
  service_->Send(stream, Acks(1));  // too late
  std::vector<v1::ConnectResponse> messages;
  const grpc::Status status = peer.Finish(&messages);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(status.error_message(), "a newer stream");
  int acks = 0;
  for (const auto& message : messages) acks += message.acks_size();
  EXPECT_EQ(acks, 100);
  EXPECT_EQ(sink_.AwaitClosed(stream), 1);
  service_->Send(stream, Acks(1));  // gone: no error
  service_->Close(stream, absl::OkStatus());
  service_->Resume(stream);
}

TEST_F(WorkerServiceTest, WrongMessagesCloseTheStreamWithTheirReason) {
  v1::ConnectRequest hello;
  hello.mutable_hello()->set_worker_id("w");
  v1::ConnectRequest credit;
  credit.set_credit(1);
  v1::ConnectRequest large;
  large.add_results()->mutable_value()->set_data(std::string(200'000, 'x'));
  struct Case {
    const char* what;
    std::vector<v1::ConnectRequest> messages;
    grpc::StatusCode code;
    const char* says;
    size_t passed;
  };
  const Case cases[] = {
      {"no hello", {credit}, grpc::StatusCode::INVALID_ARGUMENT, "begins with a hello", 0},
      {"hello twice", {hello, hello}, grpc::StatusCode::INVALID_ARGUMENT, "one hello", 1},
      {"oversized", {hello, large}, grpc::StatusCode::RESOURCE_EXHAUSTED, "larger than max", 1},
  };
  Start({}, 100'000);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const size_t before = sink_.count();
    Peer peer(channel_);
    for (const v1::ConnectRequest& message : c.messages) peer.Write(message);
    const grpc::Status status = peer.Finish();
    EXPECT_EQ(status.error_code(), c.code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(c.says));
    EXPECT_EQ(sink_.count() - before, c.passed);
  }
}

TEST_F(WorkerServiceTest, AStreamWithoutHelloIsClosedInTime) {
  WorkerServiceOptions options;
  options.hello_timeout = absl::Milliseconds(20);
  Start(options);
  Peer silent(channel_);
  const grpc::Status status = silent.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("no hello"));
}

TEST_F(WorkerServiceTest, AFullInboxPausesReading) {
  Start();
  Peer peer(channel_);
  ASSERT_TRUE(peer.Hello());
  ASSERT_TRUE(sink_.AwaitMessages(1));
  const StreamId stream = sink_.Opened();
  sink_.SetFull(true);
  v1::ConnectRequest message;
  message.set_credit(1);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(peer.Write(message));
  ASSERT_TRUE(sink_.AwaitMessages(2));
  // A read that were under way would show: a second stream's messages pass meanwhile.
  Peer other(channel_);
  ASSERT_TRUE(other.Hello());
  ASSERT_TRUE(sink_.AwaitMessages(3));
  EXPECT_EQ(sink_.Messages(stream).size(), 2u);
  service_->Resume(stream);  // one more, and full again
  ASSERT_TRUE(sink_.AwaitMessages(4));
  EXPECT_EQ(sink_.Messages(stream).size(), 3u);
  sink_.SetFull(false);
  service_->ResumeAll();
  ASSERT_TRUE(sink_.AwaitMessages(12));
  EXPECT_EQ(sink_.Messages(stream).size(), 11u);
}

TEST_F(WorkerServiceTest, EveryEndIsReportedOnce) {
  Start();
  for (int how = 0; how < 3; ++how) {
    SCOPED_TRACE(how);
    const size_t before = sink_.count();
    auto peer = std::make_unique<Peer>(channel_);
    ASSERT_TRUE(peer->Hello());
    ASSERT_TRUE(sink_.AwaitMessages(before + 1));
    const StreamId stream = sink_.Opened();
    if (how == 0) {
      peer->WritesDone();
      EXPECT_TRUE(peer->Finish().ok());
    } else if (how == 1) {
      peer->Cancel();
    } else {
      service_->Send(stream, Acks(1, 8 << 20));
      peer.reset();
    }
    EXPECT_EQ(sink_.AwaitClosed(stream), 1);
  }
  EXPECT_TRUE(service_->WaitUntilIdle(kLong));
  EXPECT_EQ(service_->streams(), 0u);
}

TEST_F(WorkerServiceTest, StreamsAreLimitedInNumber) {
  WorkerServiceOptions options;
  options.streams_max = 2;
  Start(options);
  Peer first(channel_), second(channel_);
  ASSERT_TRUE(first.Hello());
  ASSERT_TRUE(second.Hello());
  ASSERT_TRUE(sink_.AwaitMessages(2));
  Peer third(channel_);
  const grpc::Status status = third.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("its limit of 2 streams"));
}

TEST_F(WorkerServiceTest, ShutdownEndsEveryStreamAfterWhatWasSent) {
  Start();
  std::vector<std::unique_ptr<Peer>> peers;
  for (size_t i = 0; i < 5; ++i) {
    peers.push_back(std::make_unique<Peer>(channel_));
    ASSERT_TRUE(peers.back()->Hello());
    ASSERT_TRUE(sink_.AwaitMessages(i + 1));
    auto goodbye = MakeOnArena<v1::ConnectResponse>();
    goodbye->set_goodbye(true);
    service_->Send(sink_.Opened(), std::move(goodbye));
  }
  service_->Shutdown(absl::UnavailableError("the coordinator is stopping"));
  for (const auto& peer : peers) {
    std::vector<v1::ConnectResponse> messages;
    const grpc::Status status = peer->Finish(&messages);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_TRUE(messages[0].goodbye());
  }
  EXPECT_TRUE(service_->WaitUntilIdle(kLong));
  Peer late(channel_);
  EXPECT_EQ(late.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(WorkerServiceTest, ManyThreadsMaySendWhileStreamsComeAndGo) {
  Start();
  std::atomic<bool> stop = false;
  std::vector<std::thread> senders;
  for (int i = 0; i < 3; ++i) {
    senders.emplace_back([&] {
      for (StreamId stream = 1; !stop; stream = stream % 40 + 1) {
        service_->Send(stream, Acks(2, 100));
        service_->ResumeAll();
        if (stream % 7 == 0) service_->Close(stream, absl::AbortedError("over"));
      }
    });
  }
  for (int i = 0; i < 40; ++i) {
    Peer peer(channel_);
    peer.Hello();
    v1::ConnectResponse message;
    peer.Read(&message);
  }
  stop = true;
  for (std::thread& sender : senders) sender.join();
  EXPECT_TRUE(service_->WaitUntilIdle(kLong));
}

}  // namespace
}  // namespace flux::server
