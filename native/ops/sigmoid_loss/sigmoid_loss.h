// The sigmoid loss of SigLIP (arXiv 2303.15343) over all pairs of n images and m texts, and its gradients, without a
// matrix of all pairs in memory. With t = exp(logit_scale), logits l_ij = t · x_i·y_j + logit_bias and z_ij = 1 for
// pairs that belong together, else −1:
//
//   loss = −(1/n) Σ_ij log σ(z_ij l_ij) = (1/n) (Σ_ij softplus(l_ij) − Σ_{z_ij = 1} l_ij)
//   g_ij = ∂loss/∂l_ij = (σ(l_ij) − [z_ij = 1]) / n
//   grad_images_i = t Σ_j g_ij y_j,  grad_texts_j = t Σ_i g_ij x_i
//   grad_logit_scale = Σ_ij g_ij (l_ij − logit_bias)   (of the logarithm),  grad_logit_bias = Σ_ij g_ij
//
//   images                   [n, width]  float32, or bfloat16 where the device computes in it; rows of unit length
//                            (not checked)
//   texts                    [m, width]  the same
//   positives                lists of the pairs that belong together, host memory; without them m must be n, and text i
//                            belongs to image i. That as lists gives the same bits
//   grad_images, grad_texts  [n, width], [m, width]  float32, overwritten; both or neither (data == nullptr: only the
//                            loss)
//   workspace                [sigmoid_loss_workspace_rows(n, m), m]  float32, overwritten; needed with gradients
//   result                   host memory, overwritten; gradients of scale and bias are 0 when not wanted
//
// Sums of products run in float32 over short blocks and beyond them in double precision, so that logits are right to
// the last digits of float32 for any scale; loss and the gradients of scale and bias are accumulated in double
// precision, or as well as in it. Stable for every scale and bias within the bounds below, however saturated the
// logits; beyond the bounds, where float32 would overflow, or for a NaN: ERR_SIGLIP_UNSUPPORTED. n or m of 0 is
// ERR_SIGLIP_SHAPE: there is no mean over no pairs. So are lists that are not what PositivePairs says. Results do not
// depend on the number of threads, and the loss not on whether gradients are wanted.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

inline constexpr double kMostLogitScale = 80;   // t = 5.5e34
inline constexpr double kMostLogitBias = 1e30;  // in magnitude

// Which texts belong to which images: to image i those at texts[offsets[i]] to texts[offsets[i + 1] − 1], in ascending
// order, each once. An image may have none, and a text may belong to any number of images.
struct PositivePairs {
  const std::int32_t* offsets = nullptr;  // [images + 1], from 0, never falling; null: no lists
  const std::int32_t* texts = nullptr;    // [offsets[images]]
};

// The same with memory of its own.
struct PositiveLists {
  std::vector<std::int32_t> offsets;
  std::vector<std::int32_t> texts;

  // Throws ERR_SIGLIP_SHAPE when there are not images + 1 offsets, or not as many texts as the last of them says.
  PositivePairs pairs(const char* operation, std::int64_t images) const;
};

// Throws ERR_SIGLIP_SHAPE, with the entry, for lists that are not what PositivePairs says, or name other texts than
// 0 to texts − 1.
void check_positive_pairs(const char* operation, const PositivePairs& positives, std::int64_t images,
                          std::int64_t texts);

struct SigmoidLossResult {
  double loss = 0;
  double grad_logit_scale = 0;
  double grad_logit_bias = 0;
};

struct SigmoidLossArgs {
  ConstMatrixView images;
  ConstMatrixView texts;
  PositivePairs positives;
  double logit_scale = 0;
  double logit_bias = 0;
  MatrixView grad_images;
  MatrixView grad_texts;
  MatrixView workspace;
  SigmoidLossResult* result = nullptr;
};

// Rows of logits that CPUs have in memory at once: at most 32 MB of them, or one row. GPUs leave the workspace alone:
// their rows, of another number and type, are in scratch memory.
std::int64_t sigmoid_loss_workspace_rows(std::int64_t images, std::int64_t texts);

void sigmoid_loss(const OpTable& table, OpContext& context, const SigmoidLossArgs& args);

void sigmoid_loss_reference(OpContext& context, const SigmoidLossArgs& args);

}  // namespace siglip2
