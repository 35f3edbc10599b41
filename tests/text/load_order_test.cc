// libsentencepiece and libc10 both export FLAGS_minloglevel: 32 bytes there, 4 bytes here. If torch's came first,
// SentencePiece would write over libc10's variables behind it.
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>

#include "text/vocabulary.h"

extern bool FLAGS_caffe2_use_fatal_for_enforce;

namespace switchyard {
namespace {

TEST(LoadOrder, SentencePieceComesBeforeTorch) {
  EXPECT_EQ(at::ones({2}).sum().item<float>(), 2.0f);              // torch is really linked,
  EXPECT_ANY_THROW(Vocabulary::from_bytes("not a model").size());  // and so is our text
  void* flag = dlsym(RTLD_DEFAULT, "FLAGS_minloglevel");
  ASSERT_NE(flag, nullptr);
  Dl_info info{};
  ASSERT_NE(dladdr(flag, &info), 0);
  EXPECT_NE(std::string(info.dli_fname).find("libsentencepiece"), std::string::npos) << info.dli_fname;
  EXPECT_FALSE(FLAGS_caffe2_use_fatal_for_enforce) << "a neighbour of libc10's flag was written over";
}

}  // namespace
}  // namespace switchyard
