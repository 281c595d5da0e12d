#include "kernels/cpu/packed.h"

#include <gmock/gmock.h>

#include "kernels/base/checksum.h"
#include "tests/kernels/cpu/cpu_fixture.h"

namespace gatehouse::cpu {
namespace {

// Where packed_layout.h says that column `col` of input k lies.
float PanelValue(const void* panel, WeightFormat format, int64_t k, int64_t col) {
  const char* bytes = static_cast<const char*>(panel);
  if (format == WeightFormat::kF32) {
    float value;
    std::memcpy(&value, bytes + k * 128 + col * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes + (k / 2) * 128 + col * 4 + (k % 2) * 2, 2);
  return BF16ToF32(bits);
}

TEST(PackMatrixTest, PutsEveryValueOfStackedMatricesInItsPlaceAndZeroElsewhere) {
  ThreadPool pool(2);
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const int64_t k : {1, 2, 33}) {
        // 3 + 40 + 1 + 30 rows: panels that begin and end inside matrices.
        const Tensor parts[] = {
            {dtype, 3, k, 1, 1}, {dtype, 40, k, 2, 2}, {dtype, 1, k, 3, 3}, {dtype, 30, k, 4, 0}};
        std::vector<WeightView> stacked;
        for (const Tensor& part : parts) stacked.push_back(part.view());
        const auto packed = *Pack(pool, stacked, format);
        ASSERT_EQ(packed->num_outputs(), 74);
        ASSERT_EQ(packed->num_inputs(), k);
        ASSERT_EQ(packed->num_panels(), 3);
        ASSERT_EQ(packed->num_bytes(), MatrixBytes(format, 74, k));
        const int64_t padded = format == WeightFormat::kF32 ? k : (k + 1) / 2 * 2;
        int64_t n = 0;
        for (const Tensor& part : parts) {
          for (int64_t r = 0; r < part.view().num_rows; ++r, ++n) {
            for (int64_t i = 0; i < padded; ++i) {
              ASSERT_EQ(PanelValue(packed->panel(n / 32), format, i, n % 32),
                        i < k ? part.at(r, i, format) : 0.0f)
                  << "output " << n << " input " << i;
            }
          }
        }
        for (; n < 96; ++n) {
          for (int64_t i = 0; i < padded; ++i) {
            ASSERT_EQ(PanelValue(packed->panel(2), format, i, n % 32), 0.0f);
          }
        }
      }
    }
  }
}

TEST(PackMatrixTest, TakesPartsOfAMatrixAndMatricesOnTheirSide) {
  ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor tensor(dtype, 12, 70, 1, 1);
    const WeightView whole = tensor.view();
    // Every third row from 2 on; then odd columns 11 to 33, turned, of rows 3 to 11 by two.
    const WeightView rows = whole.Rows(2, 3, 3);
    const WeightView turned = whole.Rows(3, 5, 2).Cols(11, 12, 2).Transposed();
    ASSERT_EQ(turned.num_rows, 12);
    ASSERT_EQ(turned.num_cols, 5);
    const auto packed_rows = *Pack(pool, {&rows, 1}, WeightFormat::kF32);
    const auto packed_turned = *Pack(pool, {&turned, 1}, WeightFormat::kF32);
    for (int64_t n = 0; n < 3; ++n) {
      for (int64_t k = 0; k < 70; ++k) {
        ASSERT_EQ(PanelValue(packed_rows->panel(0), WeightFormat::kF32, k, n),
                  tensor.at(2 + 3 * n, k, WeightFormat::kF32));
        ASSERT_EQ(rows.at(n, k), whole.at(2 + 3 * n, k));
      }
    }
    for (int64_t n = 0; n < 12; ++n) {
      for (int64_t k = 0; k < 5; ++k) {
        ASSERT_EQ(PanelValue(packed_turned->panel(0), WeightFormat::kF32, k, n),
                  tensor.at(3 + 2 * k, 11 + 2 * n, WeightFormat::kF32));
        ASSERT_EQ(turned.at(n, k), whole.at(3 + 2 * k, 11 + 2 * n));
      }
    }
  }
}

TEST(PackExpertsTest, InterleavesGateAndUpBySixteen) {
  constexpr int64_t kHidden = 35, kIntermediate = 21;
  ThreadPool pool(2);
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    std::vector<Tensor> tensors;
    for (int e = 0; e < 3; ++e) {
      tensors.emplace_back(DType::kF32, kIntermediate, kHidden, 10 * e, 1);
      tensors.emplace_back(DType::kBF16, kIntermediate, kHidden, 10 * e + 1, 1);
      tensors.emplace_back(DType::kF32, kHidden, kIntermediate, 10 * e + 2, 3);
    }
    std::vector<ExpertSource> sources;
    for (int e = 0; e < 3; ++e) {
      sources.push_back(
          {tensors[3 * e].view(), tensors[3 * e + 1].view(), tensors[3 * e + 2].view()});
    }
    const auto packed = *Pack(pool, sources, format);
    ASSERT_EQ(packed->num_experts(), 3);
    ASSERT_EQ(packed->num_gate_up_panels(), 2);
    ASSERT_EQ(packed->num_down_panels(), 2);
    ASSERT_EQ(packed->num_bytes(), ExpertsBytes(format, {3, kHidden, kIntermediate}));
    for (int e = 0; e < 3; ++e) {
      for (int64_t i = 0; i < kIntermediate; ++i) {
        const void* panel = packed->gate_up_panel(e, i / 16);
        for (int64_t k = 0; k < kHidden; ++k) {
          ASSERT_EQ(PanelValue(panel, format, k, i % 16), tensors[3 * e].at(i, k, format));
          ASSERT_EQ(PanelValue(panel, format, k, 16 + i % 16), tensors[3 * e + 1].at(i, k, format));
          ASSERT_EQ(PanelValue(packed->down_panel(e, k / 32), format, i, k % 32),
                    tensors[3 * e + 2].at(k, i, format));
        }
      }
      for (int64_t k = 0; k < kHidden; ++k) {
        ASSERT_EQ(PanelValue(packed->gate_up_panel(e, 1), format, k, 5), 0.0f);
      }
    }
  }
}

TEST(PackTest, ReportsMemoryThatCannotBeHad) {
  ThreadPool pool(1);
  const WeightView huge{.num_rows = int64_t{1} << 30, .num_cols = int64_t{1} << 30};
  const auto packed = Pack(pool, std::vector<WeightView>{huge}, WeightFormat::kF32);
  EXPECT_EQ(packed.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(packed.status().message()), testing::HasSubstr("4611686018427387904"));
}

// Files on disk hold these bytes: whoever changes them gives kPackedLayout another name, and this
// test its sums.
TEST(PackedLayoutTest, ItsNameStandsForTheseBytes) {
  ThreadPool pool(2);
  EXPECT_EQ(kPackedLayout, "cpu-panels-1");
  std::vector<uint64_t> sums;
  for (const WeightFormat format : kWeightFormats) {
    const Tensor matrix(DType::kF32, 70, 50, 1, 1);
    const auto packed = *Pack(pool, {{matrix.view()}}, format);
    const Tensor gate(DType::kBF16, 20, 50, 2, 0), up(DType::kBF16, 20, 50, 3, 0),
        down(DType::kBF16, 50, 20, 4, 0);
    const ExpertSource source{.gate = gate.view(), .up = up.view(), .down = down.view()};
    const std::vector<ExpertSource> sources = {source, source};
    const auto experts = *Pack(pool, sources, format);
    sums.push_back(Checksum(packed->bytes()));
    sums.push_back(Checksum(experts->bytes()));
  }
  EXPECT_THAT(sums, testing::ElementsAre(0xb66c1e386a033ccbULL, 0x3a2174cf36acf69ULL,
                                         0x8227152266b3deb5ULL, 0xa607a8eb4d08a432ULL,
                                         0x85e2aeef77706a1eULL, 0x5799cc9a6b210a89ULL,
                                         0x9ce8c9f9210cca26ULL, 0x3e6a4ac68f260fbeULL));
}

}  // namespace
}  // namespace gatehouse::cpu
