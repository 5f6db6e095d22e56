package selftest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

const (
	// callTimeout bounds one call; a first pod may have to wait for a sandbox image.
	callTimeout = 60 * time.Second
	// cleanUpTimeout bounds the clean-up, which runs however the test ended.
	cleanUpTimeout = 60 * time.Second
	// maxMessage is kubelet's limit for an answer.
	maxMessage = 16 << 20
)

// run is one test under way.
type run struct {
	opts    Options
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	// token is in the name of all that the test makes, and nowhere else on the node.
	token string

	conns    []*grpc.ClientConn
	registry *labimage.Registry
	image    string // as CreateContainer names it
	program  inside.Program
	remove   string   // the image to remove at the end, empty for none
	drawn    []Extent // mappings that the test has sent
}

// Run tests a node. The error is one of the options; whatever is wrong with the node is in the
// report. When ctx ends early the report tells so, and the node is cleaned up all the same.
func Run(ctx context.Context, opts Options) (Report, error) {
	opts, err := opts.complete()
	if err != nil {
		return Report{}, err
	}
	r := &run{opts: opts, token: "selftest-" + strings.ToLower(rand.Text()[:12])}
	if err := r.dial(); err != nil {
		return Report{}, errors.Join(err, r.close())
	}
	s := r.look(ctx)
	if s.versionErr == nil {
		s.left = r.cleanUp(ctx)
	}
	if err := r.close(); err != nil {
		s.left = append(s.left, err.Error())
	}
	return report(opts.Endpoint, s), nil
}

func (r *run) dial() error {
	for _, endpoint := range []string{r.opts.Endpoint, r.opts.ImageEndpoint} {
		conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
		if err != nil {
			return fmt.Errorf("dial %s: %w", endpoint, err)
		}
		r.conns = append(r.conns, conn)
	}
	r.runtime = runtimeapi.NewRuntimeServiceClient(r.conns[0])
	r.images = runtimeapi.NewImageServiceClient(r.conns[1])
	return nil
}

func (r *run) close() error {
	var errs []error
	for _, conn := range r.conns {
		errs = append(errs, conn.Close())
	}
	if r.registry != nil {
		errs = append(errs, r.registry.Close())
	}
	return errors.Join(errs...)
}

// call makes one call. An interrupt lets it come to its end, so that nothing comes into being
// after the clean-up has looked for it.
func call[Req, Resp any](ctx context.Context, method func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (Resp, error) {
	var none Resp
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	return method(ctx, req)
}

// seen is all that a run has seen of a node.
type seen struct {
	handler    string
	version    *runtimeapi.VersionResponse
	versionErr error
	status     *runtimeapi.StatusResponse
	statusErr  error
	image      string
	imageErr   error
	pods       [2]podSeen
	// layer is a file of the image on disk; layerErr wraps ErrNotSeen where that is out of sight.
	layer    LayerFile
	layerErr error
	// left is what the clean-up left behind, or could not find out.
	left []string
}

// look gathers everything, and leaves the pods running.
func (r *run) look(ctx context.Context) seen {
	ctx, cancel := context.WithTimeoutCause(ctx, r.opts.Timeout, fmt.Errorf("the test took longer than %s", r.opts.Timeout))
	defer cancel()
	s := seen{handler: r.opts.RuntimeHandler}
	why := r.prepare(ctx, &s)
	for i := range s.pods {
		if why != "" {
			s.pods[i].absent = why
			continue
		}
		s.pods[i] = r.startPod(ctx, i+1, s.hostNetwork())
		if s.pods[i].err != nil {
			why = fmt.Sprintf("pod %d does not run", i+1)
		}
	}
	for i := range s.pods {
		if pod := &s.pods[i]; pod.down() == "" {
			r.lookInto(ctx, pod, s.pods[1-i].pid)
		}
	}
	if s.pods[0].mute() == "" {
		s.layer, s.layerErr = r.findLayer(ctx, s.pods[0].facts.Witness)
	}
	return s
}

// prepare returns why no pod can be started, empty when they can.
func (r *run) prepare(ctx context.Context, s *seen) string {
	if s.version, s.versionErr = call(ctx, r.runtime.Version, &runtimeapi.VersionRequest{}); s.versionErr != nil {
		return "the runtime does not answer"
	}
	if s.status, s.statusErr = call(ctx, r.runtime.Status, &runtimeapi.StatusRequest{}); s.statusErr != nil {
		return "the runtime does not tell its status"
	}
	if s.image, s.imageErr = r.provideImage(ctx); s.imageErr != nil {
		return "there is no image to run"
	}
	if !s.condition(runtimeapi.NetworkReady) && !s.hostNetwork() {
		return "there is no pod network, and the runtime cannot give hostNetwork pods a user namespace"
	}
	return ""
}

// condition tells whether the runtime reports a condition as true.
func (s *seen) condition(kind string) bool {
	for _, c := range s.status.GetStatus().GetConditions() {
		if c.GetType() == kind {
			return c.GetStatus()
		}
	}
	return false
}

// hostNetwork tells whether the pods use the node's network, for want of another.
func (s *seen) hostNetwork() bool {
	return !s.condition(runtimeapi.NetworkReady) && s.status.GetFeatures().GetUserNamespacesHostNetwork()
}

// findLayer asks the runtime where its images are.
func (r *run) findLayer(ctx context.Context, file inside.Witness) (LayerFile, error) {
	info, err := call(ctx, r.images.ImageFsInfo, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return LayerFile{}, fmt.Errorf("ask where images are: %w", err)
	}
	err = fmt.Errorf("the runtime names no directory of images: %w", ErrNotSeen)
	for _, fs := range info.GetImageFilesystems() {
		var found LayerFile
		if found, err = r.opts.Host.FindLayerFile(fs.GetFsId().GetMountpoint(), file); err == nil {
			return found, nil
		}
	}
	return LayerFile{}, err
}
