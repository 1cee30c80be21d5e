#include "engine/server/to_grpc.h"

#include <gtest/gtest.h>

#include <string>

namespace flux::server {
namespace {

TEST(ToGrpc, KeepsTheCodeAndTheMessagesBegin) {
  const grpc::Status plain = ToGrpc(absl::NotFoundError("no such thing"));
  EXPECT_EQ(plain.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(plain.error_message(), "no such thing");
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  const grpc::Status whole = ToGrpc(absl::AbortedError(std::string(kMessageBytesMax, 'x')));
  EXPECT_EQ(whole.error_message(), std::string(kMessageBytesMax, 'x'));

  std::string text(kMessageBytesMax - 1, 'x');
  for (int i = 0; i < 10'000; ++i) text += "é";
  const grpc::Status cut = ToGrpc(absl::NotFoundError(text));
  EXPECT_EQ(cut.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(cut.error_message(), std::string(kMessageBytesMax - 1, 'x') + "…");
}

}  // namespace
}  // namespace flux::server
