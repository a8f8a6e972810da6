/* The limit: the same exact spikes and gradients as plain loops, float32, scalar, one thread.
 *
 * tau_mem = 2 tau_syn. With x = exp(-t / tau_mem), V = a x - b x^2 between events: an arrival of weight w at x0 adds
 * w / x0 to a and w / x0^2 to b, a reset at x0 takes theta / x0 off a, and V next rises through theta at the larger root
 * of b x^2 - a x + theta. These coordinates grow with time, so they serve short trials only.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    float gain, theta, tau, t_end;
} Neuron;

typedef struct {
    float x, time;
    int32_t row, slot;
} Event;

static void sort_by_time(Event *events, Event *spare, int count) {
    for (int width = 1; width < count; width *= 2) {
        for (int left = 0; left < count; left += 2 * width) {
            int middle = left + width < count ? left + width : count;
            int right = left + 2 * width < count ? left + 2 * width : count;
            int i = left, j = middle;
            for (int k = left; k < right; k++)
                spare[k] = i < middle && (j >= right || events[i].time <= events[j].time) ? events[i++] : events[j++];
        }
        memcpy(events, spare, sizeof(Event) * count);
    }
}

/* x at which V rises through theta between x0 and x1 < x0, or 0. */
static inline float crossing(float a, float b, float theta, float x0, float x1) {
    float inside = a * a - 4 * b * theta;
    if (b <= 0 || inside < 0) return 0;
    float x = (a + sqrtf(inside)) / (2 * b);
    if (x < x1 || x > x0 * 1.00001f) return 0;
    return x > x0 ? x0 : x;
}

/* Arrivals (batch, count) in order: what of them comes before the end, and how many. */
void sort_arrivals(int batch, int count, const float *time, const int32_t *row, const Neuron *cell, Event *events, int *used) {
    Event *spare = malloc(sizeof(Event) * (count + 1));
    for (int sample = 0; sample < batch; sample++) {
        Event *mine = events + (size_t)sample * (count + 1);
        int found = 0;
        for (int e = 0; e < count; e++) {
            float t = time[(size_t)sample * count + e];
            if (t < cell->t_end) mine[found++] = (Event){expf(-t / cell->tau), t, row[e], e};
        }
        sort_by_time(mine, spare, found);
        used[sample] = found;
    }
    free(spare);
}

/* weight (neurons, rows); times and slopes (batch, neurons, spikes), inf and 1 where unused. */
void layer_forward(int batch, int count, const Event *events, const int *used, int rows, int neurons, int spikes,
                   const float *weight, const Neuron *cell, float *times, float *slopes) {
    const float last = expf(-cell->t_end / cell->tau), theta = cell->theta;
    for (int sample = 0; sample < batch; sample++) {
        const Event *mine = events + (size_t)sample * (count + 1);
        for (int n = 0; n < neurons; n++) {
            const float *w = weight + (size_t)n * rows;
            float *time = times + ((size_t)sample * neurons + n) * spikes;
            float *slope = slopes + ((size_t)sample * neurons + n) * spikes;
            float a = 0, b = 0;
            int fired = 0;
            for (int e = 0; e < used[sample] && fired < spikes; e++) {
                float x0 = mine[e].x, x1 = e + 1 < used[sample] ? mine[e + 1].x : last;
                float step = cell->gain * w[mine[e].row] / x0;
                a += step;
                b += step / x0;
                for (float x; fired < spikes && (x = crossing(a, b, theta, x0, x1)) > 0; x0 = x) {
                    time[fired] = -cell->tau * logf(x);
                    slope[fired++] = (2 * b * x - a) * x / cell->tau;
                    a -= theta / x;
                }
            }
            for (; fired < spikes; fired++) time[fired] = INFINITY, slope[fired] = 1;
        }
    }
}

/* Adds to by_weight (neurons, rows), writes by_time (batch, count). */
void layer_backward(int batch, int count, const Event *events, const int *used, int rows, int neurons, int spikes,
                    const float *weight, const Neuron *cell, const float *times, const float *slopes,
                    const float *cotangent, float *by_weight, float *by_time) {
    memset(by_weight, 0, sizeof(float) * neurons * rows);
    memset(by_time, 0, sizeof(float) * batch * count);
    for (int sample = 0; sample < batch; sample++) {
        const Event *mine = events + (size_t)sample * (count + 1);
        float *d_time = by_time + (size_t)sample * count;
        for (int n = 0; n < neurons; n++) {
            size_t first = ((size_t)sample * neurons + n) * spikes;
            const float *w = weight + (size_t)n * rows;
            float *d_weight = by_weight + (size_t)n * rows, p = 0, q = 0;
            int e = used[sample] - 1;
            for (int s = spikes - 1; s >= -1; s--) {
                float time = s >= 0 ? times[first + s] : 0;
                if (isinf(time)) continue;
                for (; e >= 0 && (s < 0 || mine[e].time >= time); e--) {
                    if (p == 0 && q == 0) continue;
                    float u = p / mine[e].x, r = q / (mine[e].x * mine[e].x);
                    d_weight[mine[e].row] += cell->gain * (u - r);
                    d_time[mine[e].slot] += cell->gain * w[mine[e].row] * (u - 2 * r) / cell->tau;
                }
                if (s < 0) break;
                float x = expf(-time / cell->tau);
                float lam = -(cotangent[first + s] - cell->theta / cell->tau * p / x) / slopes[first + s];
                p += lam * x;
                q += lam * x * x;
            }
        }
    }
}

/* weight (inputs + neurons, neurons). The log of all events: x, row (a neuron's is inputs + n), slope; (batch, room). */
void recurrent_forward(int batch, int count, const Event *events, const int *used, int inputs, int neurons, int room,
                       const float *weight, const Neuron *cell, Event *log, float *slopes, int *logged) {
    const float last = expf(-cell->t_end / cell->tau), theta = cell->theta;
    float *a = malloc(sizeof(float) * neurons), *b = malloc(sizeof(float) * neurons);
    for (int sample = 0; sample < batch; sample++) {
        const Event *mine = events + (size_t)sample * (count + 1);
        Event *entry = log + (size_t)sample * room;
        float x0 = 1, *slope = slopes + (size_t)sample * room;
        int e = 0, done = 0;
        memset(a, 0, sizeof(float) * neurons);
        memset(b, 0, sizeof(float) * neurons);
        while (done < room) {
            float x = e < used[sample] ? mine[e].x : last;
            int row = -1;
            for (int n = 0; n < neurons; n++) {
                float found = crossing(a[n], b[n], theta, x0, x);
                if (found > x) x = found, row = inputs + n;
            }
            if (row < 0 && e >= used[sample]) break;
            if (row < 0) {
                entry[done] = mine[e];
                row = mine[e++].row;
            } else {
                int n = row - inputs;
                entry[done] = (Event){x, -cell->tau * logf(x), row, 0};
                slope[done] = (2 * b[n] * x - a[n]) * x / cell->tau;
                a[n] -= theta / x;
            }
            const float *w = weight + (size_t)row * neurons, step = cell->gain / x;
            for (int n = 0; n < neurons; n++) {
                a[n] += w[n] * step;
                b[n] += w[n] * step / x;
            }
            x0 = x;
            done++;
        }
        logged[sample] = done;
    }
    free(a);
    free(b);
}

/* cotangent (batch, room) of the logged times; adds to by_weight, writes by_time (batch, count). */
void recurrent_backward(int batch, int count, int inputs, int neurons, int room, const float *weight, const Neuron *cell,
                        const Event *log, const float *slopes, const int *logged, const float *cotangent,
                        float *by_weight, float *by_time) {
    float *p = malloc(sizeof(float) * neurons), *q = malloc(sizeof(float) * neurons);
    memset(by_weight, 0, sizeof(float) * (inputs + neurons) * neurons);
    memset(by_time, 0, sizeof(float) * batch * count);
    for (int sample = 0; sample < batch; sample++) {
        memset(p, 0, sizeof(float) * neurons);
        memset(q, 0, sizeof(float) * neurons);
        for (int k = logged[sample] - 1; k >= 0; k--) {
            size_t at = (size_t)sample * room + k;
            float x = log[at].x, total = 0, ux = cell->gain / x, rx = ux / x;
            const float *w = weight + (size_t)log[at].row * neurons;
            float *d_weight = by_weight + (size_t)log[at].row * neurons;
            for (int n = 0; n < neurons; n++) {
                float u = p[n] * ux, r = q[n] * rx;
                d_weight[n] += u - r;
                total += w[n] * (u - 2 * r);
            }
            total /= cell->tau;
            if (log[at].row < inputs) {
                by_time[(size_t)sample * count + log[at].slot] = total;
                continue;
            }
            int n = log[at].row - inputs;
            float lam = -(cotangent[at] + total - cell->theta / cell->tau * p[n] / x) / slopes[at];
            p[n] += lam * x;
            q[n] += lam * x * x;
        }
    }
    free(p);
    free(q);
}
